"""What became of documents on their way into the index. Knows no way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from encoder.errors import InvalidInput, MambaSearchError


class Outcome(Enum):
    """What became of one document."""

    INGESTED = "ingested"
    UPDATED = "updated"  # its metadata alone
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"  # by a newer version, or a deletion, that came first
    REJECTED = "rejected"


class Stage(Enum):
    """Where on its way into the index a document failed."""

    READ = "read"
    CHUNK = "chunk"
    ENCODE = "encode"
    WRITE = "write"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one document: durable and searchable, or rejected with the reason."""

    document_id: str
    source: str
    outcome: Outcome
    chunk_count: int = 0
    token_count: int = 0
    generation: int = 0  # of the version in the index, from 1; 0 where it was rejected
    error: MambaSearchError | None = None  # where it was rejected
    stage: Stage | None = None  # at which it was

    @property
    def field(self) -> str:
        """Say which field of the document is at fault; empty where none is."""
        return self.error.field if isinstance(self.error, InvalidInput) else ""


@dataclass(frozen=True, slots=True)
class LoadError:
    """Something that could not be read as a document."""

    source: str  # the file, and the line where it has lines
    error: MambaSearchError
    document_id: str = ""  # where it is known


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingestion is. Counts only grow."""

    documents: int = 0  # with a receipt of any kind
    ingested: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    rejected: int = 0
    bytes_cut: int = 0  # of texts that are compared with the index, and cut where they are new, as UTF-8
    chunks_cut: int = 0
    chunks_encoded: int = 0
    tokens_encoded: int = 0
    chunks: int = 0  # written; those of documents that are rejected later included
    tokens: int = 0  # of these chunks
    text_bytes: int = 0  # of documents with a receipt, as UTF-8
    retries: int = 0
