"""Both halves of a search in one turn of the engine's thread, with what of their hits is committed at that moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.index import points, records
from ingest.index.committed_terms import CommittedTerms
from ingest.index.engine import Engine
from ingest.index.interface import Generations, IndexAnswer, IndexHit, Scope, SparseVector

if TYPE_CHECKING:
    from qdrant_edge import Payload


def find(
    engine: Engine,
    terms: CommittedTerms,
    embedding: NDArray[np.float32] | None,
    sparse: SparseVector | None,
    limit: int,
    scope: Scope,
    read_first: int,
) -> tuple[IndexAnswer, list[Payload]]:
    """Search as :meth:`ingest.index.interface.VectorIndex.search` says; with the payloads of the first hits."""
    started = time.perf_counter()
    dense: list[IndexHit] = []
    words: list[IndexHit] = []
    nowhere = points.is_empty(scope)
    if embedding is not None and not nowhere:
        dense = engine.search_dense(embedding, limit, scope)
    between = time.perf_counter()
    if sparse is not None and len(sparse.indices) and not nowhere:
        words = engine.search_sparse(terms.weigh(scope.tenant, sparse), limit, scope)
    ended = time.perf_counter()
    committed = _committed(engine, terms, scope, dense, words)
    first = [hit.chunk for hit in (words if embedding is None else dense)[:read_first]]
    payloads = engine.get_payloads(points.hit_point_ids(first)) if first else []
    return IndexAnswer(dense, words, committed, between - started, ended - between), payloads


def _committed(
    engine: Engine, terms: CommittedTerms, scope: Scope, dense: list[IndexHit], sparse: list[IndexHit]
) -> Generations:
    keys = points.documents_asked(scope, dense, sparse)
    if scope.filter is None:
        return terms.generations.among(scope.tenant, (key.document_id for key in keys))
    return records.generations_in(scope, records.committed(engine.get_states(keys)))
