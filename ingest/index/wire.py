"""Our dataclasses as messages of the loopback protocol, and back; shared by its client and its server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from mambasearch.v1 import index_pb2, metadata_pb2
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from ingest.documents import MetadataValue
from ingest.index.interface import (
    DocumentKey,
    DocumentRecord,
    Generations,
    IndexedChunk,
    IndexHit,
    Scope,
    SparseVector,
    StoredChunk,
)
from ingest.index.points import segments_of

# 1,000 hits of the longest chunks (4,096 code points of up to 4 bytes), or 1,024 records of up to 64 KiB.
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


def key_to_message(key: DocumentKey) -> index_pb2.IndexDocumentKey:
    """Write which document it is."""
    return index_pb2.IndexDocumentKey(tenant=key.tenant, document_id=key.document_id)


def key_from_message(message: index_pb2.IndexDocumentKey) -> DocumentKey:
    """Read which document it is."""
    return DocumentKey(message.tenant, message.document_id)


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
        generation=message.generation,
        chunk_index=message.chunk_index,
        char_start=message.char_start,
        char_end=message.char_end,
        line_start=message.line_start,
        line_end=message.line_end,
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
        ingested_at=_time_to_message(record.ingested_at),
        earlier=[
            index_pb2.IndexSegment(generation=segment.generation, chunk_count=segment.chunk_count)
            for segment in record.earlier
        ],
    )


def record_from_message(message: index_pb2.IndexRecord) -> DocumentRecord:
    """Read a document's record."""
    return DocumentRecord(
        tenant=message.key.tenant,
        document_id=message.key.document_id,
        title=message.title,
        source=message.source,
        metadata=metadata_from_messages(message.metadata),
        generation=message.generation,
        chunk_count=message.chunk_count,
        token_count=message.token_count,
        char_count=message.char_count,
        content_hash=message.content_hash,
        metadata_hash=message.metadata_hash,
        ingested_at=message.ingested_at.ToDatetime(tzinfo=UTC),
        earlier=segments_of((segment.generation, segment.chunk_count) for segment in message.earlier),
    )


def metadata_to_messages(metadata: Mapping[str, MetadataValue]) -> dict[str, metadata_pb2.MetadataValue]:
    """Write metadata."""
    return {name: _metadata_to_message(value) for name, value in metadata.items()}


def metadata_from_messages(messages: Mapping[str, metadata_pb2.MetadataValue]) -> dict[str, MetadataValue]:
    """Read metadata; a field without a value, or with a time that is none, is None, which no document may have."""
    return {name: _metadata_from_message(message) for name, message in messages.items()}


def _metadata_to_message(value: MetadataValue) -> metadata_pb2.MetadataValue:
    match value:
        case bool():  # before int, which it is, too
            return metadata_pb2.MetadataValue(truth=value)
        case int():
            return metadata_pb2.MetadataValue(integer=value)
        case float():
            return metadata_pb2.MetadataValue(number=value)
        case datetime():
            return metadata_pb2.MetadataValue(time=_time_to_message(value))
        case tuple():
            return metadata_pb2.MetadataValue(texts=metadata_pb2.MetadataTexts(texts=value))
        case _:
            return metadata_pb2.MetadataValue(text=value)


def _metadata_from_message(message: metadata_pb2.MetadataValue) -> MetadataValue:
    match message.WhichOneof("value"):
        case "truth":
            return message.truth
        case "integer":
            return message.integer
        case "number":
            return message.number
        case "time":
            try:
                return message.time.ToDatetime(tzinfo=UTC)
            except (ValueError, OverflowError):
                return None  # type: ignore[return-value]
        case "texts":
            return tuple(message.texts.texts)
        case "text":
            return message.text
        case _:
            return None  # type: ignore[return-value]


def _time_to_message(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def scope_to_message(scope: Scope) -> index_pb2.IndexScope:
    """Write where to search."""
    only = None if scope.generations is None else _generations_to_message(scope.generations)
    return index_pb2.IndexScope(tenant=scope.tenant, only=only, without=_generations_to_message(scope.without))


def scope_from_message(message: index_pb2.IndexScope) -> Scope:
    """Read where to search."""
    only = _generations_from_message(message.only) if message.HasField("only") else None
    return Scope(message.tenant, only, _generations_from_message(message.without))


def _generations_to_message(chosen: Generations) -> index_pb2.ScopedDocuments:
    return index_pb2.ScopedDocuments(
        documents=[
            index_pb2.ScopedDocument(document_id=document_id, generations=generations)
            for document_id, generations in chosen.items()
        ]
    )


def _generations_from_message(message: index_pb2.ScopedDocuments) -> Generations:
    return {document.document_id: tuple(document.generations) for document in message.documents}


def sparse_to_message(sparse: SparseVector) -> index_pb2.TermWeights:
    """Write term weights."""
    return index_pb2.TermWeights(indices=sparse.indices.tolist(), values=sparse.values.tolist())


def sparse_from_message(message: index_pb2.TermWeights) -> SparseVector:
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
    if len(data) % (4 * max(count, 1)):
        raise InvalidInput("embeddings", f"embeddings has {len(data)} bytes, which {count} embeddings cannot share.")
    return np.frombuffer(data, dtype="<f4").reshape(count, -1).astype(np.float32)


def upsert_to_message(chunks: Sequence[IndexedChunk]) -> index_pb2.UpsertChunksRequest:
    """Write chunks with their vectors."""
    return index_pb2.UpsertChunksRequest(
        chunks=[chunk_to_message(indexed.chunk) for indexed in chunks],
        embeddings=embeddings_to_bytes([indexed.embedding for indexed in chunks]),
        sparse=[sparse_to_message(indexed.sparse) for indexed in chunks],
    )


def upsert_from_message(message: index_pb2.UpsertChunksRequest) -> list[IndexedChunk]:
    """Read chunks with their vectors; :class:`InvalidInput` where a chunk lacks one."""
    count = len(message.chunks)
    if len(message.sparse) != count:
        raise InvalidInput("sparse", f"sparse has {len(message.sparse)} entries for {count} chunks; give one for one.")
    embeddings = embeddings_from_bytes(message.embeddings, count) if count else ()
    return [
        IndexedChunk(chunk_from_message(chunk), embedding, sparse_from_message(sparse))
        for chunk, embedding, sparse in zip(message.chunks, embeddings, message.sparse, strict=True)
    ]


def hits_to_message(hits: Sequence[IndexHit]) -> index_pb2.SearchIndexResponse:
    """Write hits, best first."""
    return index_pb2.SearchIndexResponse(
        hits=[index_pb2.IndexSearchHit(chunk=chunk_to_message(hit.chunk), score=hit.score) for hit in hits]
    )


def hits_from_message(message: index_pb2.SearchIndexResponse) -> list[IndexHit]:
    """Read hits, best first."""
    return [IndexHit(chunk_from_message(hit.chunk), hit.score) for hit in message.hits]
