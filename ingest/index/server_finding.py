"""Both halves of a search on a Qdrant server, each with the seconds that it took. Errors are the client's own."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from ingest.index import points
from ingest.index.interface import IndexHit, Scope, SparseVector
from ingest.index.server_models import committed_of, in_scope, read_consistency, sparse_vector


async def find_nearest(
    client: AsyncQdrantClient, collection: str, embedding: NDArray[np.float32] | None, limit: int, scope: Scope
) -> tuple[list[IndexHit], float]:
    """Find the nearest chunks by cosine similarity."""
    if embedding is None or points.is_empty(scope):
        return [], 0.0
    return await _find(client, collection, embedding.tolist(), points.DENSE, limit, scope)


async def find_words(
    client: AsyncQdrantClient, collection: str, sparse: SparseVector | None, limit: int, scope: Scope
) -> tuple[list[IndexHit], float]:
    """Find the best chunks by BM25."""
    if sparse is None or not len(sparse.indices) or points.is_empty(scope):
        return [], 0.0
    params = models.SearchParams(idf=models.IdfCorpusParams(corpus=committed_of(scope.tenant)))
    return await _find(client, collection, sparse_vector(sparse), points.SPARSE, limit, scope, params)


async def _find(
    client: AsyncQdrantClient,
    collection: str,
    query: list[float] | models.SparseVector,
    using: str,
    limit: int,
    scope: Scope,
    params: models.SearchParams | None = None,
) -> tuple[list[IndexHit], float]:
    started = time.perf_counter()
    found = await client.query_points(
        collection,
        query=query,
        using=using,
        query_filter=in_scope(scope),
        search_params=params,
        limit=limit,
        with_payload=points.CHUNK_KEY_FIELDS,
        consistency=read_consistency(scope.consistency),
    )
    hits = [IndexHit(points.read_chunk_key(scope.tenant, hit.payload or {}), hit.score) for hit in found.points]
    return hits, time.perf_counter() - started
