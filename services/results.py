"""What a search asks for and what it answers. Knows no gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ingest.index.interface import DocumentRecord, StoredChunk


class SearchMode(Enum):
    """How chunks are scored: by embeddings, by words, or by both."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answers the query, with the record of its document. Higher scores are better."""

    rank: int  # from 1
    score: float
    chunk: StoredChunk
    record: DocumentRecord
    dense_score: float | None  # cosine, where the chunk was among the dense candidates
    sparse_score: float | None  # BM25, where it was among the sparse ones


@dataclass(frozen=True, slots=True)
class SearchTimings:
    """Where a search's time went."""

    encode_time_ms: float
    index_time_ms: float
    total_time_ms: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first."""

    hits: tuple[Hit, ...]
    query_tokens: int  # as the encoder read them; 0 where none was asked
    timings: SearchTimings


@dataclass(frozen=True, slots=True)
class Passage:
    """Neighbouring chunks of one document as one text."""

    record: DocumentRecord
    chunks: tuple[StoredChunk, ...]  # neighbours, in order
    text: str
    token_count: int
    score: float  # of its best chunk

    @property
    def char_start(self) -> int:
        """Where it begins in the document's text, in code points."""
        return self.chunks[0].char_start

    @property
    def char_end(self) -> int:
        """Where it ends, exclusive."""
        return self.chunks[-1].char_end


@dataclass(frozen=True, slots=True)
class RetrieveResult:
    """Passages, best first."""

    passages: tuple[Passage, ...]
    timings: SearchTimings
