"""A document on its way into an index in which nobody else writes it: what is known of it after each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from encoder.errors import MambaSearchError
from ingest.chunking import Chunk, Chunker
from ingest.documents import Document
from ingest.index.interface import FIRST_GENERATION, DocumentRecord


@dataclass(slots=True)
class NewDocument:
    """A document that is cut; then encoded, or at fault."""

    record: DocumentRecord  # as it will be committed
    title: str  # as its passages have it
    chunks: Sequence[Chunk]
    embeddings: NDArray[np.float32] | None = None  # (n, d), a row per chunk
    error: MambaSearchError | None = None

    @property
    def growing(self) -> bool:
        """Say that no more of it is to come: who fills an index has all of it."""
        return False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A document, or a row that is none, which is not loaded, and why."""

    source: str
    document_id: str  # empty where the row could not be read so far
    stage: str  # "read", "check", "cut" or "encode"
    reason: str


@dataclass(slots=True)
class Bundle:
    """Documents of one part that go through the stages together."""

    part: int
    number: int  # from 0, within its part
    last: bool  # whether the part has no more
    documents: list[NewDocument] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)  # of the documents' keys, those at fault later included
    dead: list[DeadLetter] = field(default_factory=list)
    failure: str = ""  # why the rest of the part could not be read


def take_sound(documents: Sequence[NewDocument], dead: list[DeadLetter]) -> list[NewDocument]:
    """Give the documents that are encoded; each of the others becomes a dead letter."""
    sound = []
    for document in documents:
        if document.error is None:
            sound.append(document)
        else:
            record = document.record
            dead.append(DeadLetter(record.source, record.document_id, "encode", str(document.error)))
    return sound


def cut_document(document: Document, chunker: Chunker, record: DocumentRecord | None = None) -> NewDocument:
    """Cut a document; ``record`` is what is known of it already, where it is moved from another index.

    :class:`encoder.errors.InvalidInput` where the tokenizer reads nothing of it.
    """
    chunks = chunker.chunk(document, document.language)
    known = record or _first_record(document)
    token_count = sum(chunk.token_count for chunk in chunks)
    # One that has grown elsewhere is whole here.
    counted = replace(known, chunk_count=len(chunks), token_count=token_count, earlier=())
    return NewDocument(counted, chunker.passage_title(document.title), chunks)


def _first_record(document: Document) -> DocumentRecord:
    return DocumentRecord(
        tenant=document.tenant,
        document_id=document.document_id,
        title=document.title,
        source=document.source,
        metadata=document.metadata,
        generation=FIRST_GENERATION,
        chunk_count=0,
        token_count=0,
        char_count=len(document.text),
        content_hash=document.content_hash(),
        metadata_hash=document.metadata_hash(),
        ingested_at=datetime.now(UTC),
    )
