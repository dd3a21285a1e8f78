"""What a search answered, whichever way it was asked, ready to be shown or printed as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mambasearch.v1 import search_pb2

    from services.searcher import Hit, SearchResult


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """One hit, with the names that ``search.proto`` gives its fields."""

    rank: int
    score: float
    document_id: str
    title: str
    source: str
    chunk_index: int
    char_start: int
    char_end: int
    line_start: int
    line_end: int
    headings: tuple[str, ...]
    document_chars: int
    token_count: int
    text: str
    dense_score: float | None
    sparse_score: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """All hits, best first, and how long the search took (without the way to the service)."""

    hits: Sequence[FoundPassage]
    query_tokens: int
    encode_time_ms: float
    index_time_ms: float
    total_time_ms: float


def found_in_process(result: SearchResult) -> Found:
    """Convert what a searcher in this process answered."""
    return Found(
        hits=[_from_hit(hit) for hit in result.hits],
        query_tokens=result.query_tokens,
        encode_time_ms=result.timings.encode_time_ms,
        index_time_ms=result.timings.index_time_ms,
        total_time_ms=result.timings.total_time_ms,
    )


def found_by_service(response: search_pb2.SearchResponse) -> Found:
    """Convert what the search service answered."""
    return Found(
        hits=[_from_message(hit) for hit in response.hits],
        query_tokens=response.query_tokens,
        encode_time_ms=response.timings.encode_time_ms,
        index_time_ms=response.timings.index_time_ms,
        total_time_ms=response.timings.total_time_ms,
    )


def _from_hit(hit: Hit) -> FoundPassage:
    return FoundPassage(
        rank=hit.rank,
        score=hit.score,
        document_id=hit.record.document_id,
        title=hit.record.title,
        source=hit.record.source,
        chunk_index=hit.chunk.chunk_index,
        char_start=hit.chunk.char_start,
        char_end=hit.chunk.char_end,
        line_start=hit.chunk.line_start,
        line_end=hit.chunk.line_end,
        headings=hit.chunk.headings,
        document_chars=hit.record.char_count,
        token_count=hit.chunk.token_count,
        text=hit.chunk.text,
        dense_score=hit.dense_score,
        sparse_score=hit.sparse_score,
    )


def _from_message(hit: search_pb2.Hit) -> FoundPassage:
    return FoundPassage(
        rank=hit.rank,
        score=hit.score,
        document_id=hit.document_id,
        title=hit.title,
        source=hit.source,
        chunk_index=hit.chunk_index,
        char_start=hit.char_start,
        char_end=hit.char_end,
        line_start=hit.line_start,
        line_end=hit.line_end,
        headings=tuple(hit.headings),
        document_chars=hit.document_chars,
        token_count=hit.token_count,
        text=hit.text,
        dense_score=hit.dense_score if hit.HasField("dense_score") else None,
        sparse_score=hit.sparse_score if hit.HasField("sparse_score") else None,
    )
