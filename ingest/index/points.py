"""Chunks and records as points: their ids and payloads, the same in every engine. Knows no engine.

A chunk is a point with both vectors; a document's record is a point without any, in the same collection, and so is the
tombstone that takes its place. Searches find only points with vectors: a tenant is all that they filter by.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from ingest.documents import value_from_json, value_to_json
from ingest.filters import check_filter
from ingest.index.fields import DocumentFields, is_whole
from ingest.index.interface import (
    BATCH_CHUNKS_MAX,
    LIMIT_MAX,
    READ_MAX,
    ChunkKey,
    DocumentKey,
    DocumentRecord,
    Generations,
    IndexedChunk,
    IndexHit,
    Scope,
    Segment,
    StoredChunk,
)
from ingest.index.records import RecordState

# Of the ids and payloads below; whoever changes them raises it, and what was written before is refused.
FORMAT_VERSION = 3

DENSE = "dense"
SPARSE = "sparse"
KIND = "kind"
KIND_CHUNK = "chunk"
KIND_RECORD = "record"
KIND_TOMBSTONE = "tombstone"
TENANT = "tenant"
DOCUMENT_ID = "document_id"
GENERATION = "generation"
FENCE = "fence"
EARLIER = "earlier"
DESCRIBING = "describing"
# The embedded engine takes a truth value in a filter for a number.
YES = "yes"
NO = "no"
TOKENS = "tokens"
RANGES = "ranges"
CHUNK_INDEX = "chunk_index"
CHUNK_KEY_FIELDS = [DOCUMENT_ID, GENERATION, CHUNK_INDEX]  # of a tenant known

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "mamba-search")


def chunk_point_id(key: ChunkKey) -> str:
    """Name a chunk's point; the id comes last, so that nothing in it can be taken for another field."""
    return _point_id(key.tenant, f"chunk/{key.generation}/{key.chunk_index}/{key.document_id}")


def record_point_id(key: DocumentKey) -> str:
    """Name a document's record, or its tombstone."""
    return _point_id(key.tenant, f"record/{key.document_id}")


def _point_id(tenant: str, name: str) -> str:
    """Make a UUID of version 5, in a quarter of the library's time: a search asks for hundreds."""
    digest = bytearray(sha1(_tenant_namespace(tenant) + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    written = digest.hex()
    return f"{written[:8]}-{written[8:12]}-{written[12:16]}-{written[16:20]}-{written[20:]}"


@lru_cache(maxsize=1024)
def _tenant_namespace(tenant: str) -> bytes:
    return uuid.uuid5(_NAMESPACE, tenant).bytes


def range_path(name: str) -> str:
    """Say where a payload has the number, or time, of a name (:func:`ingest.index.fields.range_name`)."""
    return f"{RANGES}.{name}"


def range_names(paths: Iterable[str]) -> set[str]:
    """Read the names from paths; other paths name none."""
    return {path.removeprefix(f"{RANGES}.") for path in paths if path.startswith(f"{RANGES}.")}


def fields_payload(fields: DocumentFields) -> dict[str, Any]:
    """Write what a chunk carries of its document, as a part of its payload."""
    ranges = {name: int(value) if is_whole(value) else value for name, value in fields.ranges.items()}
    return {TOKENS: list(fields.tokens), RANGES: ranges}


def chunk_payload(indexed: IndexedChunk) -> dict[str, Any]:
    """Write a chunk as a payload."""
    chunk = indexed.chunk
    return {
        **(fields_payload(indexed.fields) if indexed.fields else {}),
        KIND: KIND_CHUNK,
        TENANT: chunk.tenant,
        DOCUMENT_ID: chunk.document_id,
        GENERATION: chunk.generation,
        CHUNK_INDEX: chunk.chunk_index,
        "char_start": chunk.char_start,
        "char_end": chunk.char_end,
        "line_start": chunk.line_start,
        "line_end": chunk.line_end,
        "headings": list(chunk.headings),
        "token_count": chunk.token_count,
        "text": chunk.text,
    }


def read_chunk_key(tenant: str, payload: Mapping[str, Any]) -> ChunkKey:
    """Read which of a tenant's chunks it is."""
    return ChunkKey(tenant, payload[DOCUMENT_ID], payload[GENERATION], payload[CHUNK_INDEX])


def read_chunk(payload: Mapping[str, Any]) -> StoredChunk:
    """Read a chunk back."""
    return StoredChunk(
        tenant=payload[TENANT],
        document_id=payload[DOCUMENT_ID],
        generation=payload[GENERATION],
        chunk_index=payload[CHUNK_INDEX],
        char_start=payload["char_start"],
        char_end=payload["char_end"],
        line_start=payload["line_start"],
        line_end=payload["line_end"],
        headings=tuple(payload["headings"]),
        token_count=payload["token_count"],
        text=payload["text"],
    )


def state_payload(key: DocumentKey, state: RecordState) -> dict[str, Any]:
    """Write what is known of a document as a payload: a record's, or a tombstone's."""
    record = state.record
    common = {TENANT: key.tenant, DOCUMENT_ID: key.document_id, FENCE: state.fence}
    if record is None:
        return {KIND: KIND_TOMBSTONE, **common}
    return {
        KIND: KIND_RECORD,
        **common,
        GENERATION: record.generation,
        "title": record.title,
        "source": record.source,
        "metadata": {name: value_to_json(value) for name, value in record.metadata.items()},
        "chunk_count": record.chunk_count,
        "token_count": record.token_count,
        "char_count": record.char_count,
        "content_hash": record.content_hash,
        "metadata_hash": record.metadata_hash,
        "ingested_at": record.ingested_at.isoformat(),
        **({DESCRIBING: YES} if state.describing else {}),
        EARLIER: [[segment.generation, segment.chunk_count] for segment in record.earlier],
    }


def read_state(payload: Mapping[str, Any]) -> tuple[DocumentKey, RecordState]:
    """Read back what is known of a document."""
    record = read_record(payload) if is_record(payload) else None
    state = RecordState(payload[FENCE], record, payload.get(DESCRIBING) == YES)
    return DocumentKey(payload[TENANT], payload[DOCUMENT_ID]), state


def is_record(payload: Mapping[str, Any]) -> bool:
    """Say whether a payload is a record, not a tombstone."""
    return bool(payload[KIND] == KIND_RECORD)


def read_generations(payload: Mapping[str, Any]) -> tuple[int, ...]:
    """Read which generations a record lists, ascending; a tombstone lists none."""
    return (*(generation for generation, _ in payload[EARLIER]), payload[GENERATION]) if is_record(payload) else ()


def read_record(payload: Mapping[str, Any]) -> DocumentRecord:
    """Read a document's record back."""
    return DocumentRecord(
        tenant=payload[TENANT],
        document_id=payload[DOCUMENT_ID],
        title=payload["title"],
        source=payload["source"],
        metadata={name: value_from_json(value) for name, value in payload["metadata"].items()},
        generation=payload[GENERATION],
        chunk_count=payload["chunk_count"],
        token_count=payload["token_count"],
        char_count=payload["char_count"],
        content_hash=payload["content_hash"],
        metadata_hash=payload["metadata_hash"],
        ingested_at=datetime.fromisoformat(payload["ingested_at"]),
        earlier=segments_of(payload[EARLIER]),
    )


def hit_point_ids(chunks: Sequence[ChunkKey]) -> list[str]:
    """Name the points of chunks, and of their documents' records: each once."""
    documents = {DocumentKey(key.tenant, key.document_id) for key in chunks}
    return [*map(chunk_point_id, chunks), *map(record_point_id, documents)]


def read_hits(
    payloads: Iterable[Mapping[str, Any]],
) -> tuple[dict[ChunkKey, StoredChunk], dict[DocumentKey, DocumentRecord]]:
    """Read chunks and records from payloads; tombstones are left out."""
    chunks: dict[ChunkKey, StoredChunk] = {}
    found: dict[DocumentKey, DocumentRecord] = {}
    for payload in payloads:
        if payload[KIND] == KIND_CHUNK:
            chunk = read_chunk(payload)
            chunks[chunk.chunk_key] = chunk
        elif is_record(payload):
            record = read_record(payload)
            found[record.key] = record
    return chunks, found


def chunk_point_ids(record: DocumentRecord) -> list[str]:
    """Name the points of all chunks of a version, in order."""
    return [
        chunk_point_id(ChunkKey(*record.key, segment.generation, segment.first_chunk + number))
        for segment in record.segments
        for number in range(segment.chunk_count)
    ]


def segments_of(sizes: Iterable[tuple[int, int]]) -> tuple[Segment, ...]:
    """Make segments, one after another, of their generations and numbers of chunks."""
    segments: list[Segment] = []
    first = 0
    for generation, chunk_count in sizes:
        segments.append(Segment(generation, first, chunk_count))
        first += chunk_count
    return tuple(segments)


def is_empty(scope: Scope) -> bool:
    """Say whether a scope names documents, but not one."""
    return scope.generations is not None and not scope.generations


def by_generations(chosen: Generations) -> dict[tuple[int, ...], list[str]]:
    """Group a scope's documents by generations: an engine matches a list of ids ten times faster than as many pairs."""
    grouped: dict[tuple[int, ...], list[str]] = {}
    for document_id, generations in chosen.items():
        grouped.setdefault(tuple(sorted(generations)), []).append(document_id)
    return grouped


def check_batch(chunks: Sequence[IndexedChunk], dimension: int) -> None:
    """Refuse a batch over the limit, or with an embedding that the index cannot hold."""
    if len(chunks) > BATCH_CHUNKS_MAX:
        raise InvalidInput("chunks", f"chunks has {len(chunks)} entries; the limit is {BATCH_CHUNKS_MAX} a call.")
    for indexed in chunks:
        check_embedding(indexed.embedding, dimension)


def check_embedding(embedding: NDArray[np.float32], dimension: int) -> None:
    """Refuse an embedding of another length, or with a value that is no number."""
    if embedding.shape != (dimension,):
        raise InvalidInput("embedding", f"embedding has shape {embedding.shape}; the index holds ({dimension},).")
    if not np.isfinite(embedding).all():
        raise InvalidInput("embedding", "embedding holds values that are not finite numbers; the encoder is at fault.")


def check_search(
    embedding: NDArray[np.float32] | None, dimension: int, limit: int, scope: Scope, read_first: int = 0
) -> None:
    """Refuse what no index can search by."""
    check_limit(limit)
    check_read("read_first", read_first)
    if embedding is not None:
        check_embedding(embedding, dimension)
    check_scope(scope)


def documents_asked(scope: Scope, *halves: Sequence[IndexHit]) -> list[DocumentKey]:
    """Name the documents whose generations an answer has: those found, and those that were not to be."""
    names = {hit.chunk.document_id: None for hits in halves for hit in hits} | dict.fromkeys(scope.without)
    return [DocumentKey(scope.tenant, name) for name in names]


def check_limit(limit: int, limit_max: int = LIMIT_MAX) -> None:
    """Refuse a number of hits, or of records on a page, out of range."""
    if not 1 <= limit <= limit_max:
        raise InvalidInput("limit", f"limit is {limit}; 1 to {limit_max} are allowed.")


def check_read(field: str, count: int) -> None:
    """Refuse to read too much at once."""
    if count > READ_MAX:
        raise InvalidInput(field, f"{field} asks for {count} entries; the limit is {READ_MAX} a call.")


def check_scope(scope: Scope) -> None:
    """Refuse a scope of too many documents, or with a filter that says nothing."""
    if scope.filter is not None:
        check_filter(scope.filter)
    count = max(len(scope.generations or ()), len(scope.without))
    if count > READ_MAX:
        raise InvalidInput("scope", f"scope names {count} documents; the limit is {READ_MAX} a search.")


def page_start(after: str) -> str | None:
    """Read a page's token: the point that the page begins with; None for the first page."""
    if not after:
        return None
    try:
        return str(uuid.UUID(after))
    except ValueError:
        raise InvalidInput(
            "after", f"after is {after[:40]!r}, which is no page's token; give that of the page before, or none."
        ) from None


def check_generation(generation: int, lowest: int = 1) -> None:
    """Refuse a generation that no version of a document can have."""
    if generation < lowest:
        raise InvalidInput("generation", f"generation is {generation}; they are counted from {lowest}.")


def check_chosen(generation: int | None, below: int | None, keep: Collection[int]) -> None:
    """Refuse to delete chunks unless it is said which."""
    if (generation is None) == (below is None):
        raise InvalidInput("below", "Chunks are deleted of one generation, or below one; give just one of the two.")
    if generation is not None and keep:
        raise InvalidInput("keep", f"keep names {len(keep)} generations, but one is deleted; give it with below.")
