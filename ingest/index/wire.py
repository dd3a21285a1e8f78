"""Our dataclasses as messages of the loopback protocol, and back; shared by its client and its server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from mambasearch.v1 import index_pb2, index_scope_pb2, index_search_pb2
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from ingest.documents import check_metadata
from ingest.index.fields import RANGE_NAME, DocumentFields
from ingest.index.filter_messages import filter_from_message, filter_to_message
from ingest.index.interface import (
    ChunkKey,
    DocumentKey,
    DocumentRecord,
    Generations,
    IndexAnswer,
    IndexedChunk,
    IndexHit,
    Scope,
    SparseVector,
    StoredChunk,
)
from ingest.index.metadata_messages import metadata_from_messages, metadata_to_messages, time_to_message
from ingest.index.points import read_hits, segments_of

# 1,000 hits of the longest chunks (4,096 code points of up to 4 bytes), or 1,024 records of up to 64 KiB.
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
# The protocol's whole numbers have 64 bits without a sign; engines keep them with one.
WHOLE_MAX = 2**63 - 1


def whole(field: str, number: int) -> int:
    """Read a whole number; :class:`InvalidInput` for one that no engine can hold."""
    if number > WHOLE_MAX:
        raise InvalidInput(field, f"{field} is {number}; the limit is {WHOLE_MAX}.")
    return number


def wholes(field: str, numbers: Iterable[int]) -> tuple[int, ...]:
    """Read whole numbers; :class:`InvalidInput` where an engine cannot hold one."""
    return tuple(whole(field, number) for number in numbers)


def key_to_message(key: DocumentKey) -> index_pb2.IndexDocumentKey:
    """Write which document it is."""
    return index_pb2.IndexDocumentKey(tenant=key.tenant, document_id=key.document_id)


def key_from_message(message: index_pb2.IndexDocumentKey) -> DocumentKey:
    """Read which document it is."""
    return DocumentKey(message.tenant, message.document_id)


def chunk_key_to_message(key: ChunkKey) -> index_pb2.IndexChunkKey:
    """Write which chunk it is."""
    return index_pb2.IndexChunkKey(
        key=index_pb2.IndexDocumentKey(tenant=key.tenant, document_id=key.document_id),
        generation=key.generation,
        chunk_index=key.chunk_index,
    )


def chunk_key_from_message(message: index_pb2.IndexChunkKey) -> ChunkKey:
    """Read which chunk it is."""
    return ChunkKey(
        message.key.tenant, message.key.document_id, whole("generation", message.generation), message.chunk_index
    )


def chunk_to_message(chunk: StoredChunk) -> index_pb2.IndexChunk:
    """Write a chunk."""
    return index_pb2.IndexChunk(
        key=key_to_message(chunk.key),
        generation=chunk.generation,
        chunk_index=chunk.chunk_index,
        char_start=chunk.char_start,
        char_end=chunk.char_end,
        line_start=chunk.line_start,
        line_end=chunk.line_end,
        headings=chunk.headings,
        token_count=chunk.token_count,
        text=chunk.text,
    )


def chunk_from_message(message: index_pb2.IndexChunk) -> StoredChunk:
    """Read a chunk."""
    return StoredChunk(
        tenant=message.key.tenant,
        document_id=message.key.document_id,
        generation=whole("generation", message.generation),
        chunk_index=message.chunk_index,
        char_start=whole("char_start", message.char_start),
        char_end=whole("char_end", message.char_end),
        line_start=whole("line_start", message.line_start),
        line_end=whole("line_end", message.line_end),
        headings=tuple(message.headings),
        token_count=message.token_count,
        text=message.text,
    )


def record_to_message(record: DocumentRecord) -> index_pb2.IndexRecord:
    """Write a document's record."""
    return index_pb2.IndexRecord(
        key=key_to_message(record.key),
        title=record.title,
        source=record.source,
        metadata=metadata_to_messages(record.metadata),
        generation=record.generation,
        chunk_count=record.chunk_count,
        token_count=record.token_count,
        char_count=record.char_count,
        content_hash=record.content_hash,
        metadata_hash=record.metadata_hash,
        ingested_at=time_to_message(record.ingested_at),
        earlier=[
            index_pb2.IndexSegment(generation=segment.generation, chunk_count=segment.chunk_count)
            for segment in record.earlier
        ],
    )


def record_from_message(message: index_pb2.IndexRecord) -> DocumentRecord:
    """Read a document's record; :class:`InvalidInput` for metadata that no document can have."""
    metadata = metadata_from_messages(message.metadata)
    check_metadata(metadata)
    return DocumentRecord(
        tenant=message.key.tenant,
        document_id=message.key.document_id,
        title=message.title,
        source=message.source,
        metadata=metadata,
        generation=whole("generation", message.generation),
        chunk_count=message.chunk_count,
        token_count=whole("token_count", message.token_count),
        char_count=whole("char_count", message.char_count),
        content_hash=message.content_hash,
        metadata_hash=message.metadata_hash,
        ingested_at=_time_of(message.ingested_at),
        earlier=segments_of((whole("earlier", segment.generation), segment.chunk_count) for segment in message.earlier),
    )


def _time_of(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            "ingested_at", f"ingested_at is {message.seconds} s and {message.nanos} ns, which is no time of a calendar."
        ) from None


def scope_to_message(scope: Scope) -> index_scope_pb2.IndexScope:
    """Write where to search."""
    return index_scope_pb2.IndexScope(
        tenant=scope.tenant,
        only=None if scope.generations is None else _generations_to_message(scope.generations),
        without=_generations_to_message(scope.without),
        filter=None if scope.filter is None else filter_to_message(scope.filter),
    )


def scope_from_message(message: index_scope_pb2.IndexScope) -> Scope:
    """Read where to search."""
    only = _generations_from_message(message.only) if message.HasField("only") else None
    chosen = filter_from_message(message.filter) if message.HasField("filter") else None
    return Scope(message.tenant, only, _generations_from_message(message.without), chosen)


def _generations_to_message(chosen: Generations) -> index_scope_pb2.ScopedDocuments:
    return index_scope_pb2.ScopedDocuments(
        documents=[
            index_scope_pb2.ScopedDocument(document_id=document_id, generations=generations)
            for document_id, generations in chosen.items()
        ]
    )


def _generations_from_message(message: index_scope_pb2.ScopedDocuments) -> Generations:
    return {document.document_id: wholes("generations", document.generations) for document in message.documents}


def sparse_to_message(sparse: SparseVector) -> index_search_pb2.TermWeights:
    """Write term weights."""
    return index_search_pb2.TermWeights(indices=sparse.indices.tolist(), values=sparse.values.tolist())


def sparse_from_message(message: index_search_pb2.TermWeights) -> SparseVector:
    """Read term weights; :class:`InvalidInput` where indices and values differ in number."""
    if len(message.indices) != len(message.values):
        raise InvalidInput(
            "sparse", f"sparse has {len(message.indices)} indices and {len(message.values)} values; give one for one."
        )
    return SparseVector(np.array(message.indices, dtype=np.uint32), np.array(message.values, dtype=np.float32))


def embeddings_to_bytes(embeddings: Sequence[NDArray[np.float32]]) -> bytes:
    """Write embeddings row by row, little-endian."""
    return b"".join(embedding.astype("<f4", copy=False).tobytes() for embedding in embeddings)


def embeddings_from_bytes(data: bytes, count: int) -> NDArray[np.float32]:
    """Read ``(count, d)`` embeddings; :class:`InvalidInput` where the bytes are no such table."""
    dimension, left_over = divmod(len(data), 4 * count) if count else (0, len(data))
    if left_over:
        raise InvalidInput("embeddings", f"embeddings has {len(data)} bytes, which {count} embeddings cannot share.")
    return np.frombuffer(data, dtype="<f4").reshape(count, dimension).astype(np.float32)


def upsert_to_message(chunks: Sequence[IndexedChunk]) -> index_pb2.UpsertChunksRequest:
    """Write chunks with their vectors, and what they carry of their documents: that once a document."""
    fields = list({id(indexed.fields): indexed.fields for indexed in chunks if indexed.fields}.values())
    places = {id(each): place for place, each in enumerate(fields, start=1)}
    return index_pb2.UpsertChunksRequest(
        chunks=[chunk_to_message(indexed.chunk) for indexed in chunks],
        embeddings=embeddings_to_bytes([indexed.embedding for indexed in chunks]),
        sparse=[sparse_to_message(indexed.sparse) for indexed in chunks],
        fields=[index_pb2.IndexFields(tokens=each.tokens, ranges=each.ranges) for each in fields],
        fields_of=[places.get(id(indexed.fields), 0) for indexed in chunks],
    )


def upsert_from_message(message: index_pb2.UpsertChunksRequest) -> list[IndexedChunk]:
    """Read chunks with their vectors; :class:`InvalidInput` where a chunk lacks one."""
    count = len(message.chunks)
    if len(message.sparse) != count:
        raise InvalidInput("sparse", f"sparse has {len(message.sparse)} entries for {count} chunks; give one for one.")
    fields = [None, *map(_fields_from_message, message.fields)]
    if len(message.fields_of) != count or any(place >= len(fields) for place in message.fields_of):
        raise InvalidInput(
            "fields_of", f"fields_of does not name one of {len(message.fields)} fields, or 0, per chunk."
        )
    embeddings = embeddings_from_bytes(message.embeddings, count)
    return [
        IndexedChunk(chunk_from_message(chunk), embedding, sparse_from_message(sparse), fields[place])
        for chunk, embedding, sparse, place in zip(
            message.chunks, embeddings, message.sparse, message.fields_of, strict=True
        )
    ]


def _fields_from_message(message: index_pb2.IndexFields) -> DocumentFields:
    for name in message.ranges:
        if not RANGE_NAME.fullmatch(name):
            raise InvalidInput("fields.ranges", f"fields.ranges has {name[:80]!r}, which is no field's name.")
    return DocumentFields(tuple(message.tokens), dict(message.ranges))


def search_to_message(
    embedding: NDArray[np.float32] | None, sparse: SparseVector | None, limit: int, scope: Scope, read_first: int
) -> index_search_pb2.SearchIndexRequest:
    """Write what to search by, and where."""
    return index_search_pb2.SearchIndexRequest(
        embedding=None if embedding is None else embeddings_to_bytes([embedding]),
        sparse=None if sparse is None else sparse_to_message(sparse),
        limit=limit,
        scope=scope_to_message(scope),
        read_first=read_first,
    )


def search_from_message(
    message: index_search_pb2.SearchIndexRequest,
) -> tuple[NDArray[np.float32] | None, SparseVector | None, int, Scope, int]:
    """Read what to search by, and where; :class:`InvalidInput` where it is no such thing."""
    embedding = embeddings_from_bytes(message.embedding, 1)[0] if message.HasField("embedding") else None
    sparse = sparse_from_message(message.sparse) if message.HasField("sparse") else None
    return embedding, sparse, message.limit, scope_from_message(message.scope), message.read_first


def answer_to_message(answer: IndexAnswer, written: Sequence[str]) -> index_search_pb2.SearchIndexResponse:
    """Write hits, best first, each number in a column: an object of its own for each of them costs milliseconds.

    ``written`` is what was read of the first hits, in JSON, as the index keeps it.
    """
    places: dict[str, int] = {}
    for name in (*(hit.chunk.document_id for hit in (*answer.dense, *answer.sparse)), *answer.committed):
        places.setdefault(name, len(places))
    pairs = [(places[name], number) for name, numbers in answer.committed.items() for number in numbers]
    return index_search_pb2.SearchIndexResponse(
        document_ids=list(places),
        dense=_hits_to_message(answer.dense, places),
        sparse=_hits_to_message(answer.sparse, places),
        committed_documents=[document for document, _ in pairs],
        committed_generations=[generation for _, generation in pairs],
        dense_s=answer.dense_s,
        sparse_s=answer.sparse_s,
        written=written,
    )


def answer_from_message(tenant: str, message: index_search_pb2.SearchIndexResponse) -> IndexAnswer:
    """Read what a tenant's search found."""
    names = list(message.document_ids)
    committed: dict[str, list[int]] = {}
    for document, generation in zip(message.committed_documents, message.committed_generations, strict=True):
        committed.setdefault(names[document], []).append(generation)
    dense, sparse = (_hits_from_message(tenant, hits, names) for hits in (message.dense, message.sparse))
    read = read_hits(map(json.loads, message.written))
    return IndexAnswer(dense, sparse, committed, message.dense_s, message.sparse_s, read)


def _hits_to_message(hits: Sequence[IndexHit], places: Mapping[str, int]) -> index_search_pb2.IndexHits:
    return index_search_pb2.IndexHits(
        documents=[places[hit.chunk.document_id] for hit in hits],
        generations=[hit.chunk.generation for hit in hits],
        chunk_indexes=[hit.chunk.chunk_index for hit in hits],
        scores=[hit.score for hit in hits],
    )


def _hits_from_message(tenant: str, message: index_search_pb2.IndexHits, names: Sequence[str]) -> list[IndexHit]:
    columns = zip(message.documents, message.generations, message.chunk_indexes, message.scores, strict=True)
    return [
        IndexHit(ChunkKey(tenant, names[document], generation, chunk_index), score)
        for document, generation, chunk_index, score in columns
    ]
