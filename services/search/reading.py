"""What a search reads of an index beside its candidates: embeddings, chunks, a document's record and its pages."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput, NotFound
from ingest.documents import DOCUMENT_ID_BYTES_MAX
from ingest.index.interface import (
    READ_MAX,
    ChunkKey,
    DocumentKey,
    DocumentRecord,
    ReadConsistency,
    StoredChunk,
    VectorIndex,
)
from services.paging import make_token, read_token
from services.search.candidates import IndexTimes, read_records
from services.search.ranking import Ranking
from services.search.requests import ChunksRequest
from services.search.results import ChunksPage

CHUNKS_PAGE = 50
CHUNKS_PAGE_MAX = 200


async def read_embeddings(
    index: VectorIndex, keys: Sequence[ChunkKey], times: IndexTimes
) -> dict[ChunkKey, NDArray[np.float32]]:
    """Read the embeddings ``(d,)`` of chunks that are there."""
    started = time.perf_counter()
    found: dict[ChunkKey, NDArray[np.float32]] = {}
    for start in range(0, len(keys), READ_MAX):
        found |= await index.get_embeddings(keys[start : start + READ_MAX])
    _add(times, started)
    return found


async def keep_similar(index: VectorIndex, ranking: Ranking, least: float, times: IndexTimes) -> Ranking:
    """Keep the chunks of at least this cosine to the query; those that only words found have theirs computed."""
    unknown = [key for key in ranking.order if key not in ranking.cosines]
    embeddings = await read_embeddings(index, unknown, times) if unknown else {}
    cosines = {key: float(embedding @ ranking.embedding) for key, embedding in embeddings.items()}
    return ranking.of_similarity(cosines, least)


async def read_record(index: VectorIndex, key: DocumentKey, consistency: ReadConsistency) -> DocumentRecord:
    """Read a document's record; :class:`NotFound` where the tenant has no such document."""
    size = len(key.document_id.encode(errors="replace"))
    if not 1 <= size <= DOCUMENT_ID_BYTES_MAX:
        message = f"document_id has {size} bytes; 1 to {DOCUMENT_ID_BYTES_MAX} are allowed."
        raise InvalidInput("document_id", message)
    record = (await index.get_records([key], consistency=consistency)).get(key)
    if record is None:
        raise NotFound(f"There is no document {key.document_id[:100]!r}.")
    return record


async def read_chunks(
    index: VectorIndex, keys: Sequence[ChunkKey], consistency: ReadConsistency, times: IndexTimes
) -> dict[ChunkKey, StoredChunk]:
    """Read chunks that are there: one that is missing was collected, long after another version took its place."""
    started = time.perf_counter()
    found: dict[ChunkKey, StoredChunk] = {}
    for start in range(0, len(keys), READ_MAX):
        found |= await index.read_chunks(keys[start : start + READ_MAX], consistency=consistency)
    _add(times, started)
    return found


async def read_hits(
    index: VectorIndex, keys: Sequence[ChunkKey], consistency: ReadConsistency, times: IndexTimes
) -> tuple[dict[ChunkKey, StoredChunk], dict[str, DocumentRecord]]:
    """Read chunks that are there, and their documents' committed records by document_id."""
    started = time.perf_counter()
    found: dict[ChunkKey, StoredChunk] = {}
    records: dict[str, DocumentRecord] = {}
    for start in range(0, len(keys), READ_MAX):
        chunks, theirs = await index.read_hits(keys[start : start + READ_MAX], consistency=consistency)
        found |= chunks
        # A document of which hits are read in two calls has the record of the first.
        records = {key.document_id: record for key, record in theirs.items()} | records
    _add(times, started)
    return found, records


async def read_records_of(
    index: VectorIndex, keys: Sequence[ChunkKey], consistency: ReadConsistency, times: IndexTimes
) -> dict[str, DocumentRecord]:
    """Read the committed records of one tenant's chunks' documents by document_id."""
    started = time.perf_counter()
    names = list(dict.fromkeys(key.document_id for key in keys))
    found = await read_records(index, keys[0].tenant, names, consistency) if keys else {}
    _add(times, started)
    return found


async def list_chunks(index: VectorIndex, request: ChunksRequest) -> ChunksPage:
    """Read a page of a document's chunks.

    :class:`NotFound` where the tenant has no such document; :class:`InvalidInput` names ``page_size``,
    ``chunk_index_first`` or ``page_token``, the last also where what it goes on from has been replaced.
    """
    if request.page_size < 0:
        message = f"page_size is {request.page_size}; give 1 to {CHUNKS_PAGE_MAX}, or 0 for {CHUNKS_PAGE}."
        raise InvalidInput("page_size", message)
    size = min(request.page_size or CHUNKS_PAGE, CHUNKS_PAGE_MAX)
    asked = repr((request.tenant, request.document_id, request.chunk_index_first)).encode()
    after = read_token(asked, request.page_token, 2)
    record = await read_record(index, DocumentKey(request.tenant, request.document_id), request.consistency)
    first = request.chunk_index_first
    if after is None:
        if not 0 <= first < max(record.chunk_count, 1):
            message = f"chunk_index_first is {first}; the document has {record.chunk_count} chunks, from 0."
            raise InvalidInput("chunk_index_first", message)
    else:
        last, generation = int(after[0]), after[1]
        if not 0 <= last < record.chunk_count or record.generation_of(last) != generation:
            message = "page_token is of chunks that have been replaced since; begin with the first page."
            raise InvalidInput("page_token", message)
        first = last + 1
    last = min(first + size, record.chunk_count) - 1
    keys = [ChunkKey(*record.key, record.generation_of(place), place) for place in range(first, last + 1)]
    found = await read_chunks(index, keys, request.consistency, IndexTimes())
    chunks = [found[key] for key in keys if key in found]
    token = make_token(asked, (last, record.generation_of(last))) if last + 1 < record.chunk_count else ""
    return ChunksPage(record, tuple(chunks), token)


def _add(times: IndexTimes, started: float) -> None:
    spent_s = time.perf_counter() - started
    times.records_s += spent_s
    times.total_s += spent_s
