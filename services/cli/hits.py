"""What a search answered, ready to be shown or printed as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ingest.index.metadata_messages import metadata_from_messages
from ingest.sources.languages import is_source_language

if TYPE_CHECKING:
    from mambasearch.v1 import metadata_pb2, search_pb2


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
    metadata: Mapping[str, object]
    dense_score: float | None
    sparse_score: float | None
    explanation: str | None  # its one line

    @property
    def is_code(self) -> bool:
        """Say whether it is of source code: its lines are those of a file then, its headings are definitions."""
        return is_source_language(self.metadata.get("language"))


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """A document with its best hits."""

    rank: int
    score: float
    document_id: str
    title: str
    source: str
    chunk_count: int
    metadata: Mapping[str, object]
    hits: Sequence[FoundPassage]


@dataclass(frozen=True, slots=True)
class Found:
    """A page of hits, or of documents, best first, and how long the search took (without the way to the service)."""

    hits: Sequence[FoundPassage]
    groups: Sequence[FoundDocument]
    next_page_token: str
    depth_reached: bool
    query_tokens: int
    timings: Mapping[str, float]


def found_by(response: search_pb2.SearchResponse) -> Found:
    """Read an answer."""
    return Found(
        hits=[_hit(hit) for hit in response.hits],
        groups=[found_document(group) for group in response.groups],
        next_page_token=response.next_page_token,
        depth_reached=response.depth_reached,
        query_tokens=response.query_tokens,
        timings=timings_of(response.timings),
    )


def found_document(group: search_pb2.DocumentGroup) -> FoundDocument:
    """Read a document with its hits."""
    return FoundDocument(
        rank=group.rank,
        score=group.score,
        document_id=group.document_id,
        title=group.title,
        source=group.source,
        chunk_count=group.chunk_count,
        metadata=_metadata(group.metadata),
        hits=[_hit(hit) for hit in group.hits],
    )


def timings_of(timings: search_pb2.SearchTimings) -> Mapping[str, float]:
    """Read where the time went, in milliseconds."""
    return {name: getattr(timings, name) for name in timings.DESCRIPTOR.fields_by_name}


def _metadata(messages: Mapping[str, metadata_pb2.MetadataValue]) -> Mapping[str, object]:
    """Read metadata; times as texts, which is what JSON has."""
    found = metadata_from_messages(messages)
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found.items()}


def _hit(hit: search_pb2.Hit) -> FoundPassage:
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
        metadata=_metadata(hit.metadata),
        dense_score=hit.dense_score if hit.HasField("dense_score") else None,
        sparse_score=hit.sparse_score if hit.HasField("sparse_score") else None,
        explanation=hit.explanation.summary if hit.HasField("explanation") else None,
    )
