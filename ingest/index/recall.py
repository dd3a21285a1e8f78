"""How well a collection's approximate search finds what an exact one would: measured on vectors that it holds."""

from __future__ import annotations

from qdrant_client import models

from encoder.errors import IndexUnavailable
from ingest.documents import DEFAULT_TENANT
from ingest.index import points
from ingest.index.collections import Collections
from ingest.index.interface import Scope
from ingest.index.server_models import in_scope, matching

TOP_K = 10
# Two of the same score may change places, also by the last bits of their arithmetic.
SCORE_TOLERANCE = 1e-6


async def measure_recall(collections: Collections, collection: str, *, queries: int, top_k: int = TOP_K) -> float:
    """Give the mean recall@k over so many random chunks, each asked for as a search of its tenant would be.

    The truth is the server's exact search; a chunk does not count as found by itself. What scores as high as the k-th
    of the truth is right. 1.0 where there is nothing to find.
    """
    found: list[float] = []
    for chunk in await _sample(collections, collection, queries):
        embedding = _embedding(chunk)
        tenant = (chunk.payload or {}).get(points.TENANT, DEFAULT_TENANT)
        truth = await _nearest(collections, collection, embedding, tenant, chunk.id, top_k, exact=True)
        if truth:
            answer = await _nearest(collections, collection, embedding, tenant, chunk.id, top_k, exact=False)
            right = sum(score >= truth[-1] - SCORE_TOLERANCE for score in answer)
            found.append(right / len(truth))
    return sum(found) / len(found) if found else 1.0


async def _sample(collections: Collections, collection: str, count: int) -> list[models.ScoredPoint]:
    async with collections.translated():
        answer = await collections.client.query_points(
            collection,
            query=models.SampleQuery(sample=models.Sample.RANDOM),
            query_filter=models.Filter(must=[matching(points.KIND, points.KIND_CHUNK)]),
            limit=count,
            with_payload=[points.TENANT],
            with_vectors=[points.DENSE],
        )
    return answer.points


async def _nearest(
    collections: Collections,
    collection: str,
    embedding: list[float],
    tenant: str,
    itself: models.ExtendedPointId,
    top_k: int,
    *,
    exact: bool,
) -> list[float]:
    """Give the scores of the nearest chunks but itself, best first."""
    async with collections.translated():
        answer = await collections.client.query_points(
            collection,
            query=embedding,
            using=points.DENSE,
            query_filter=in_scope(Scope(tenant)),
            search_params=models.SearchParams(exact=True) if exact else None,
            limit=top_k + 1,
            with_payload=False,
        )
    return [hit.score for hit in answer.points if hit.id != itself][:top_k]


def _embedding(chunk: models.ScoredPoint) -> list[float]:
    vectors = chunk.vector
    dense = vectors.get(points.DENSE) if isinstance(vectors, dict) else None
    if not isinstance(dense, list):
        raise IndexUnavailable(f"Chunk {chunk.id} came without its embedding; try again.")
    return [float(value) for value in dense]  # type: ignore[arg-type] # one vector, not several
