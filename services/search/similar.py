"""Documents like another one, by their chunks' embeddings.

A document is the mean of its chunks' embeddings: its chunks say many things, and the mean what they have in common. The
index gives the chunks nearest to that mean, and their documents are then compared mean with mean.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable
from ingest.index.interface import READ_MAX, ChunkKey, DocumentKey, DocumentRecord, Scope, VectorIndex
from services.search.candidates import Asked, IndexTimes, find_candidates
from services.search.fusion import ReciprocalRanks
from services.search.grouping import by_document
from services.search.looking import Look
from services.search.query_encoding import EncodedQuery, already
from services.search.ranking import rank
from services.search.reading import read_chunks, read_embeddings, read_record
from services.search.requests import SIMILAR_TOP_K_MAX, SimilarRequest
from services.search.results import DocumentHits, SearchMode, SimilarResult

# Documents that are compared mean with mean, at least.
COMPARED_MIN = 50
# Chunks of each whose mean is taken, evenly spread: as many as one call reads for all of them.
OTHERS_CHUNKS = READ_MAX // SIMILAR_TOP_K_MAX
OWN_CHUNKS = 256


async def find_similar(index: VectorIndex, request: SimilarRequest) -> SimilarResult:
    """Find the documents most like one, with the chunks of each that are most like its mean.

    :class:`NotFound` where the tenant has no such document; :class:`IndexUnavailable` where it is replaced just now.
    """
    started = time.perf_counter()
    times = IndexTimes()
    record = await read_record(index, DocumentKey(request.tenant, request.document_id), request.consistency)
    mean = (await _means(index, [record], OWN_CHUNKS, times)).get(record.document_id)
    if mean is None:
        raise IndexUnavailable(f"Document {record.document_id[:100]!r} is being replaced; try again.")
    scope = Scope(request.tenant, filter=request.filter, consistency=request.consistency)
    asked = Asked(already(EncodedQuery(mean)), None, scope, times, excluded=record)
    compared = max(request.top_k, COMPARED_MIN)
    found = await find_candidates(
        index, asked, compared, lambda candidates: len(candidates.document_ids()), with_records=True
    )
    records = found.records or {}
    ranked_from = time.perf_counter()
    ranking = rank(found, SearchMode.DENSE, ReciprocalRanks(), mean)
    grouped = by_document(ranking, request.group_chunks)
    look = Look(ranking, EncodedQuery(mean), times, found.exhausted, time.perf_counter() - ranked_from)
    others = [records[name] for name in list(grouped)[:compared]]
    likeness = {
        name: float(other @ mean) for name, other in (await _means(index, others, OTHERS_CHUNKS, times)).items()
    }
    least = -1.0 if request.min_score is None else request.min_score
    best = sorted(likeness, key=lambda name: (-likeness[name], name))[: request.top_k]
    shown = [name for name in best if likeness[name] >= least]
    chunks = await read_chunks(index, [key for name in shown for key in grouped[name]], request.consistency, times)
    documents = []
    for place, name in enumerate(shown, start=1):
        of_it = [chunks[key] for key in grouped[name] if key in chunks]
        hits = tuple(ranking.hit(chunk, records[name], number) for number, chunk in enumerate(of_it, start=1))
        documents.append(DocumentHits(place, likeness[name], records[name], hits))
    return SimilarResult(tuple(documents), look.timings(started))


async def _means(
    index: VectorIndex, documents: Sequence[DocumentRecord], chunks_max: int, times: IndexTimes
) -> dict[str, NDArray[np.float32]]:
    """Read the means ``(d,)`` of documents, of length 1; one whose chunks are gone is left out."""
    keys = [key for record in documents for key in _spread(record, chunks_max)]
    embeddings: dict[str, list[NDArray[np.float32]]] = {}
    for key, embedding in (await read_embeddings(index, keys, times)).items():
        embeddings.setdefault(key.document_id, []).append(embedding)
    means = {}
    for name, rows in embeddings.items():
        mean = np.mean(rows, axis=0)
        # Chunks that point in opposite ways have no mean direction, and are like nothing.
        means[name] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return means


def _spread(record: DocumentRecord, count: int) -> list[ChunkKey]:
    """Name so many of a document's chunks, or all, evenly spread over it."""
    places = np.linspace(0, record.chunk_count - 1, min(count, record.chunk_count)).round().astype(int).tolist()
    return [ChunkKey(*record.key, record.generation_of(place), place) for place in places]
