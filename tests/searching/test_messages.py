"""Requests and answers as messages: every field there is, every value that is none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from google.rpc import error_details_pb2, status_pb2
from mambasearch.v1 import filter_pb2, search_pb2

from encoder.errors import InvalidInput, Overloaded
from ingest.filters import Exists
from ingest.index.interface import ReadConsistency
from services.search import answer_messages
from services.search.answer_messages import failure_to_message
from services.search.request_messages import (
    chunks_from_message,
    retrieve_from_message,
    search_from_message,
    similar_from_message,
)
from services.search.requests import FusionChoice, FusionMethod, PassageOrder, SearchRequest
from services.search.results import SearchMode

TABLES = {
    search_pb2.SearchResponse.DESCRIPTOR: answer_messages._SEARCH,
    search_pb2.Hit.DESCRIPTOR: answer_messages._HIT,
    search_pb2.Explanation.DESCRIPTOR: answer_messages._EXPLANATION,
    search_pb2.DocumentGroup.DESCRIPTOR: answer_messages._GROUP,
    search_pb2.SearchTimings.DESCRIPTOR: answer_messages._TIMINGS,
    search_pb2.RetrieveResponse.DESCRIPTOR: answer_messages._RETRIEVE,
    search_pb2.Passage.DESCRIPTOR: answer_messages._PASSAGE,
    search_pb2.SimilarDocumentsResponse.DESCRIPTOR: answer_messages._SIMILAR,
    search_pb2.ListChunksResponse.DESCRIPTOR: answer_messages._CHUNKS,
    search_pb2.Chunk.DESCRIPTOR: answer_messages._CHUNK,
}


@pytest.mark.parametrize("message", TABLES, ids=lambda message: message.name)
def test_every_field_of_an_answer_is_made(message: Descriptor) -> None:
    assert set(TABLES[message]) == set(message.fields_by_name)


def test_a_search_is_read_whole() -> None:
    request = search_from_message(
        search_pb2.SearchRequest(
            query="a",
            mode=search_pb2.SEARCH_MODE_HYBRID,
            top_k=3,
            tenant="t",
            embedding=[1, 2],
            filter=filter_pb2.Filter(exists="title"),
            fusion=search_pb2.Fusion(method=search_pb2.FUSION_METHOD_RECIPROCAL_RANK, sparse_weight=0, rank_constant=9),
            diversity=search_pb2.Diversity(mmr_lambda=0),
            min_score=0,
            page_token="p",
            consistency=search_pb2.READ_CONSISTENCY_QUORUM,
            explain=True,
        )
    )
    assert (request.query, request.mode, request.top_k, request.tenant) == ("a", SearchMode.HYBRID, 3, "t")
    assert request.embedding is not None
    assert request.embedding.tolist() == [1, 2]
    assert request.embedding.dtype == np.float32
    assert request.filter == Exists("title")
    assert request.fusion == FusionChoice(FusionMethod.RECIPROCAL_RANK, None, 0.0, 9)
    assert (request.mmr_lambda, request.min_score, request.page_token, request.explain) == (0.0, 0.0, "p", True)
    assert (request.consistency, request.group_chunks) == (ReadConsistency.QUORUM, None)


def test_what_is_not_set_has_its_default() -> None:
    plain, asked = search_from_message(search_pb2.SearchRequest(query="a")), SearchRequest("a")
    for name in SearchRequest.__slots__:
        assert getattr(plain, name) == getattr(asked, name), name
    grouped = search_pb2.SearchRequest(query="a", group_by_document=search_pb2.Grouping())
    assert search_from_message(grouped).group_chunks == 3
    diverse = search_pb2.SearchRequest(query="a", diversity=search_pb2.Diversity())
    assert search_from_message(diverse).mmr_lambda == 0.7
    retrieved = retrieve_from_message(search_pb2.RetrieveRequest(query="a"))
    assert (retrieved.search.top_k, retrieved.token_budget, retrieved.neighbours) == (50, 2048, 0)
    assert retrieved.order is PassageOrder.SCORE
    similar = similar_from_message(search_pb2.SimilarDocumentsRequest(document_id="d"))
    assert (similar.top_k, similar.group_chunks, similar.min_score, similar.tenant) == (10, 3, None, "default")
    assert chunks_from_message(search_pb2.ListChunksRequest(document_id="d")).chunk_index_first == 0


@pytest.mark.parametrize(
    ("read", "message", "field"),
    [
        (search_from_message, search_pb2.SearchRequest(query="a", mode=9), "mode"),
        (search_from_message, search_pb2.SearchRequest(query="a", consistency=4), "consistency"),
        (search_from_message, search_pb2.SearchRequest(query="a", fusion=search_pb2.Fusion(method=3)), "fusion.method"),
        (search_from_message, search_pb2.SearchRequest(query="a", tenant="no such!"), "tenant"),
        (search_from_message, search_pb2.SearchRequest(query="a", filter=filter_pb2.Filter()), "filter"),
        (retrieve_from_message, search_pb2.RetrieveRequest(query="a", mode=-1), "mode"),
        (retrieve_from_message, search_pb2.RetrieveRequest(query="a", order=3), "order"),
        (similar_from_message, search_pb2.SimilarDocumentsRequest(document_id="a", consistency=7), "consistency"),
        (chunks_from_message, search_pb2.ListChunksRequest(document_id="a", consistency=7), "consistency"),
    ],
)
def test_values_that_mean_nothing_are_refused(read: Callable[[Any], object], message: object, field: str) -> None:
    with pytest.raises(InvalidInput, match=field) as refusal:
        read(message)
    assert refusal.value.field == field


def test_a_failure_can_be_read_as_googles_status() -> None:
    failure = failure_to_message(Overloaded("Too many.", 0.5))
    status = status_pb2.Status.FromString(failure.SerializeToString())
    assert (status.code, status.message) == (8, "Too many.")
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 500
