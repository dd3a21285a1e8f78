"""Answers as messages of ``search.proto``, of which only what a mask asks for is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message
from mambasearch.v1 import search_pb2

from encoder.errors import MambaSearchError
from encoder.grpc_errors import status_of
from ingest.index.interface import DocumentRecord, StoredChunk
from ingest.index.metadata_messages import metadata_to_messages
from services.search.read_mask import Mask
from services.search.requests import FusionMethod
from services.search.results import (
    ChunksPage,
    DocumentHits,
    Explanation,
    Hit,
    Passage,
    RetrieveResult,
    SearchResult,
    SearchTimings,
    SimilarResult,
)

_Message = TypeVar("_Message", bound=Message)
# By a message's fields: how each is made of a thing, and of the mask for what is below it.
_Fields = Mapping[str, Callable[[Any, Mask], object]]

_METHODS: Mapping[str, search_pb2.FusionMethod] = {
    FusionMethod.FITTED.value: search_pb2.FUSION_METHOD_FITTED,
    FusionMethod.RECIPROCAL_RANK.value: search_pb2.FUSION_METHOD_RECIPROCAL_RANK,
}


def search_to_message(found: SearchResult, mask: Mask) -> search_pb2.SearchResponse:
    """Write what a search found."""
    return _made(search_pb2.SearchResponse, _SEARCH, found, mask)


def retrieve_to_message(found: RetrieveResult, mask: Mask) -> search_pb2.RetrieveResponse:
    """Write passages and their text block."""
    return _made(search_pb2.RetrieveResponse, _RETRIEVE, found, mask)


def similar_to_message(found: SimilarResult, mask: Mask) -> search_pb2.SimilarDocumentsResponse:
    """Write documents like another."""
    return _made(search_pb2.SimilarDocumentsResponse, _SIMILAR, found, mask)


def chunks_to_message(page: ChunksPage, mask: Mask) -> search_pb2.ListChunksResponse:
    """Write a page of a document's chunks."""
    return _made(search_pb2.ListChunksResponse, _CHUNKS, page, mask)


def failure_to_message(error: MambaSearchError) -> search_pb2.Failure:
    """Write why a search has no answer."""
    status = status_of(error)
    return search_pb2.Failure(code=status.code, message=status.message, details=status.details)


def _made(kind: type[_Message], fields: _Fields, thing: object, mask: Mask) -> _Message:
    if mask is None:
        return kind(**{name: make(thing, None) for name, make in fields.items()})
    return kind(**{name: fields[name](thing, below) for name, below in mask.items()})


def _of_record(get: Callable[[Any], DocumentRecord]) -> _Fields:
    """List what hits, groups and passages have of their documents."""
    return {
        "document_id": lambda thing, _: get(thing).document_id,
        "title": lambda thing, _: get(thing).title,
        "source": lambda thing, _: get(thing).source,
        "metadata": lambda thing, _: metadata_to_messages(get(thing).metadata),
    }


def _hits(thing: SearchResult | DocumentHits, mask: Mask) -> list[search_pb2.Hit]:
    return [_made(search_pb2.Hit, _HIT, hit, mask) for hit in thing.hits]


def _timings(thing: SearchResult | RetrieveResult | SimilarResult, mask: Mask) -> search_pb2.SearchTimings:
    return _made(search_pb2.SearchTimings, _TIMINGS, thing.timings, mask)


def _explanation(hit: Hit, mask: Mask) -> search_pb2.Explanation | None:
    return None if hit.explanation is None else _made(search_pb2.Explanation, _EXPLANATION, hit.explanation, mask)


def _attributes(kind: type[object], *names: str) -> _Fields:
    """Fields that are a thing's attributes of the same names."""

    def of(name: str) -> Callable[[Any, Mask], object]:
        return lambda thing, _: getattr(thing, name)

    assert all(hasattr(kind, name) for name in names), kind
    return {name: of(name) for name in names}


_TIMINGS = _attributes(SearchTimings, *search_pb2.SearchTimings.DESCRIPTOR.fields_by_name)
_EXPLANATION: _Fields = {
    **_attributes(Explanation, *search_pb2.Explanation.DESCRIPTOR.fields_by_name),
    "fusion": lambda explanation, _: _METHODS.get(explanation.fusion, search_pb2.FUSION_METHOD_UNSPECIFIED),
}
_CHUNK = _attributes(StoredChunk, *search_pb2.Chunk.DESCRIPTOR.fields_by_name)


def _of_chunk(name: str) -> Callable[[Hit, Mask], object]:
    return lambda hit, _: getattr(hit.chunk, name)


_HIT: _Fields = {
    **_attributes(Hit, "rank", "score", "dense_score", "sparse_score"),
    **_of_record(lambda hit: hit.record),
    "document_chars": lambda hit, _: hit.record.char_count,
    **{name: _of_chunk(name) for name in _CHUNK},
    "explanation": _explanation,
}
_GROUP: _Fields = {
    **_attributes(DocumentHits, "rank", "score"),
    **_of_record(lambda group: group.record),
    "document_chars": lambda group, _: group.record.char_count,
    "chunk_count": lambda group, _: group.record.chunk_count,
    "hits": _hits,
}
_SEARCH: _Fields = {
    **_attributes(SearchResult, "query_tokens", "next_page_token", "depth_reached"),
    "hits": _hits,
    "timings": _timings,
    "groups": lambda found, mask: [_made(search_pb2.DocumentGroup, _GROUP, group, mask) for group in found.groups],
}
_PASSAGE: _Fields = {
    **_attributes(
        Passage,
        *("char_start", "char_end", "text", "token_count", "score", "number", "line_start", "line_end", "headings"),
    ),
    **_of_record(lambda passage: passage.record),
    "chunk_index_first": lambda passage, _: passage.chunks[0].chunk_index,
    "chunk_index_last": lambda passage, _: passage.chunks[-1].chunk_index,
}
_RETRIEVE: _Fields = {
    **_attributes(RetrieveResult, "context", "context_tokens", "query_tokens"),
    "passages": lambda found, mask: [_made(search_pb2.Passage, _PASSAGE, one, mask) for one in found.passages],
    "token_count": lambda found, _: sum(passage.token_count for passage in found.passages),
    "timings": _timings,
}
_SIMILAR: _Fields = {
    "documents": lambda found, mask: [_made(search_pb2.DocumentGroup, _GROUP, one, mask) for one in found.documents],
    "timings": _timings,
}
_CHUNKS: _Fields = {
    "chunks": lambda page, mask: [_made(search_pb2.Chunk, _CHUNK, chunk, mask) for chunk in page.chunks],
    "next_page_token": lambda page, _: page.next_page_token,
    "title": lambda page, _: page.record.title,
    "source": lambda page, _: page.record.source,
    "chunk_count": lambda page, _: page.record.chunk_count,
    "document_chars": lambda page, _: page.record.char_count,
    "metadata": lambda page, _: metadata_to_messages(page.record.metadata),
}
