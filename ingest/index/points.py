"""Chunks and records as points: their ids and payloads, the same in every engine. Knows no engine.

A chunk is a point with both vectors; a document's record is a point without any, in the same collection.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from ingest.index.interface import (
    BATCH_CHUNKS_MAX,
    LIMIT_MAX,
    READ_MAX,
    DocumentRecord,
    IndexedChunk,
    StoredChunk,
)

DENSE = "dense"
SPARSE = "sparse"
KIND = "kind"
KIND_CHUNK = "chunk"
KIND_RECORD = "record"
DOCUMENT_ID = "document_id"
GENERATION = "generation"

_TENANT = "default"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "mamba-search")


def chunk_point_id(document_id: str, generation: int, chunk_index: int) -> str:
    """Name a chunk's point; the id comes last, so that nothing in it can be taken for another field."""
    return str(uuid.uuid5(_NAMESPACE, f"{_TENANT}/chunk/{generation}/{chunk_index}/{document_id}"))


def record_point_id(document_id: str) -> str:
    """Name a document's record."""
    return str(uuid.uuid5(_NAMESPACE, f"{_TENANT}/record/{document_id}"))


def chunk_payload(chunk: StoredChunk) -> dict[str, Any]:
    """Write a chunk as a payload."""
    return {
        KIND: KIND_CHUNK,
        DOCUMENT_ID: chunk.document_id,
        GENERATION: chunk.generation,
        "chunk_index": chunk.chunk_index,
        "char_start": chunk.char_start,
        "char_end": chunk.char_end,
        "token_count": chunk.token_count,
        "text": chunk.text,
    }


def read_chunk(payload: Mapping[str, Any]) -> StoredChunk:
    """Read a chunk back."""
    return StoredChunk(
        document_id=payload[DOCUMENT_ID],
        generation=payload[GENERATION],
        chunk_index=payload["chunk_index"],
        char_start=payload["char_start"],
        char_end=payload["char_end"],
        token_count=payload["token_count"],
        text=payload["text"],
    )


def record_payload(record: DocumentRecord) -> dict[str, Any]:
    """Write a document's record as a payload."""
    return {
        KIND: KIND_RECORD,
        DOCUMENT_ID: record.document_id,
        GENERATION: record.generation,
        "title": record.title,
        "source": record.source,
        "chunk_count": record.chunk_count,
        "token_count": record.token_count,
        "char_count": record.char_count,
        "content_hash": record.content_hash,
        "ingested_at": record.ingested_at.isoformat(),
    }


def read_record(payload: Mapping[str, Any]) -> DocumentRecord:
    """Read a document's record back."""
    return DocumentRecord(
        document_id=payload[DOCUMENT_ID],
        title=payload["title"],
        source=payload["source"],
        generation=payload[GENERATION],
        chunk_count=payload["chunk_count"],
        token_count=payload["token_count"],
        char_count=payload["char_count"],
        content_hash=payload["content_hash"],
        ingested_at=datetime.fromisoformat(payload["ingested_at"]),
    )


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


def check_limit(limit: int) -> None:
    """Refuse a number of hits out of range."""
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput("limit", f"limit is {limit}; 1 to {LIMIT_MAX} are allowed.")


def check_read(field: str, count: int) -> None:
    """Refuse to read too much at once."""
    if count > READ_MAX:
        raise InvalidInput(field, f"{field} asks for {count} entries; the limit is {READ_MAX} a call.")
