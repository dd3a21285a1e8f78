"""Our dataclasses as messages of the loopback protocol, and back; shared by its client and its server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from mambasearch.v1 import index_pb2
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from ingest.index.interface import DocumentRecord, IndexedChunk, IndexHit, SparseVector, StoredChunk

# 1,000 hits of the longest chunks: 4,096 code points of up to 4 bytes.
MESSAGE_BYTES_MAX = 32 * 1024 * 1024


def chunk_to_message(chunk: StoredChunk) -> index_pb2.IndexChunk:
    """Write a chunk."""
    return index_pb2.IndexChunk(
        document_id=chunk.document_id,
        generation=chunk.generation,
        chunk_index=chunk.chunk_index,
        char_start=chunk.char_start,
        char_end=chunk.char_end,
        token_count=chunk.token_count,
        text=chunk.text,
    )


def chunk_from_message(message: index_pb2.IndexChunk) -> StoredChunk:
    """Read a chunk."""
    return StoredChunk(
        document_id=message.document_id,
        generation=message.generation,
        chunk_index=message.chunk_index,
        char_start=message.char_start,
        char_end=message.char_end,
        token_count=message.token_count,
        text=message.text,
    )


def record_to_message(record: DocumentRecord) -> index_pb2.IndexRecord:
    """Write a document's record."""
    ingested_at = Timestamp()
    ingested_at.FromDatetime(record.ingested_at)
    return index_pb2.IndexRecord(
        document_id=record.document_id,
        title=record.title,
        source=record.source,
        generation=record.generation,
        chunk_count=record.chunk_count,
        token_count=record.token_count,
        char_count=record.char_count,
        content_hash=record.content_hash,
        ingested_at=ingested_at,
    )


def record_from_message(message: index_pb2.IndexRecord) -> DocumentRecord:
    """Read a document's record."""
    return DocumentRecord(
        document_id=message.document_id,
        title=message.title,
        source=message.source,
        generation=message.generation,
        chunk_count=message.chunk_count,
        token_count=message.token_count,
        char_count=message.char_count,
        content_hash=message.content_hash,
        ingested_at=message.ingested_at.ToDatetime(tzinfo=UTC),
    )


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
