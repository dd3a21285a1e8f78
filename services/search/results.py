"""What a search answers. Knows no gRPC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ingest.index.interface import DocumentRecord, StoredChunk


class SearchMode(Enum):
    """How chunks are scored: by embeddings, by words, or by both."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a score came to be: ``score = dense_part + sparse_part``."""

    dense_rank: int | None  # among the dense candidates, from 1
    sparse_rank: int | None
    fusion: str  # a FusionMethod's value; empty where nothing is fused
    dense_value: float  # the cosine that counted
    sparse_value: float  # the BM25 score that counted
    dense_weight: float
    sparse_weight: float
    dense_part: float
    sparse_part: float
    summary: str  # the same in one line
    similarity_before: float | None = None  # with diversity: the greatest cosine to a hit before this one
    diverse_score: float | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answers the query, with the record of its document. Higher scores are better."""

    rank: int  # from 1
    score: float
    chunk: StoredChunk
    record: DocumentRecord
    dense_score: float | None  # cosine, where the chunk was among the dense candidates or min_score asked for it
    sparse_score: float | None  # BM25, where it was among the sparse ones
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class DocumentHits:
    """A document with its best hits, best first."""

    rank: int  # from 1
    score: float
    record: DocumentRecord
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class SearchTimings:
    """Where a search's time went. Both halves run at once, so that the parts may be more than the whole."""

    encode_time_ms: float
    index_time_ms: float
    total_time_ms: float
    queue_time_ms: float = 0.0  # these two of encode_time_ms, in the encoder
    tokenize_time_ms: float = 0.0
    dense_time_ms: float = 0.0  # these three of index_time_ms
    sparse_time_ms: float = 0.0
    records_time_ms: float = 0.0
    fuse_time_ms: float = 0.0

    def followed_by(self, index_time_s: float, total_time_s: float) -> SearchTimings:
        """Give the times of a search after which the index was read again; ``total_time_s`` are both together."""
        return replace(
            self,
            index_time_ms=self.index_time_ms + 1000 * index_time_s,
            records_time_ms=self.records_time_ms + 1000 * index_time_s,
            total_time_ms=1000 * total_time_s,
        )


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A page of hits, best first, or of documents where they are grouped."""

    hits: tuple[Hit, ...]
    query_tokens: int  # as the encoder read them; 0 where none was asked
    timings: SearchTimings
    groups: tuple[DocumentHits, ...] = ()
    next_page_token: str = ""
    depth_reached: bool = False  # there may be more, and no further page


@dataclass(frozen=True, slots=True)
class Passage:
    """Neighbouring chunks of one document as one text."""

    record: DocumentRecord
    chunks: tuple[StoredChunk, ...]  # neighbours, in order
    text: str
    token_count: int
    score: float  # of its best chunk
    headings: tuple[str, ...]  # those of its best chunk
    number: int  # in the text block, from 1

    @property
    def char_start(self) -> int:
        """Where it begins in the document's text, in code points."""
        return self.chunks[0].char_start

    @property
    def char_end(self) -> int:
        """Where it ends, exclusive."""
        return self.chunks[-1].char_end

    @property
    def line_start(self) -> int:
        """The line that it begins in, from 1."""
        return self.chunks[0].line_start

    @property
    def line_end(self) -> int:
        """The line that it ends in, inclusive."""
        return self.chunks[-1].line_end


@dataclass(frozen=True, slots=True)
class RetrieveResult:
    """Passages, in the order asked for, and all of them as one text under their citations."""

    passages: tuple[Passage, ...]
    context: str
    context_tokens: int
    query_tokens: int
    timings: SearchTimings


@dataclass(frozen=True, slots=True)
class SimilarResult:
    """Documents like another, the most alike first."""

    documents: tuple[DocumentHits, ...]
    timings: SearchTimings


@dataclass(frozen=True, slots=True)
class ChunksPage:
    """Some of a document's chunks, in order."""

    record: DocumentRecord
    chunks: tuple[StoredChunk, ...]
    next_page_token: str
