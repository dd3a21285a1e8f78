"""Searching over HTTP: answers and errors are gRPC's, in JSON."""

from __future__ import annotations

from typing import Any

import pytest
from mambasearch.v1 import search_pb2

from encoder.errors import (
    EncoderUnavailable,
    FingerprintMismatch,
    NotFound,
    Overloaded,
    PermissionDenied,
    TimedOut,
    Unauthenticated,
)
from tests.http.serving import Served, served

FULL = {
    "query": "apples",
    "mode": "SEARCH_MODE_HYBRID",
    "top_k": 3,
    "tenant": "acme",
    "embedding": [0.5, 1],
    "filter": {
        "all_of": {
            "filters": [
                {"equals": {"field": "metadata.year", "value": {"integer": 2**60}}},
                {"negated": {"exists": "source"}},
                {"range": {"field": "ingested_at", "at_least": {"time": "2026-01-02T03:04:05.5Z"}}},
                {"is_in": {"field": "title", "values": [{"text": "é"}, {"truth": False}, {"number": 0.5}]}},
            ]
        }
    },
    "fusion": {"method": "FUSION_METHOD_RECIPROCAL_RANK", "dense_weight": 0.0, "rank_constant": 10},
    "group_by_document": {"chunks_max": 2},
    "min_score": -0.25,
    "read_mask": "groups.hits.char_start,timings",
    "consistency": "READ_CONSISTENCY_ALL",
    "explain": True,
}


async def test_a_search_answers_as_grpc_does(http: Served) -> None:
    answer = await http.client.post("/v1/search", json={"query": "apples in winters", "group_by_document": {}})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["query_tokens"], found["next_page_token"]) == (7, "")
    [group] = found["groups"]
    assert group["metadata"] == {"year": {"integer": 2020}}
    hit = group["hits"][0]
    assert hit["text"] == "Apples want cold winters. An orchard that never freezes gives little fruit."
    assert (hit["char_start"], hit["char_end"], hit["headings"]) == (17, 92, ["Orchard notes"])
    assert hit["explanation"]["dense_rank"] == 1
    assert "similarity_before" not in hit["explanation"]  # unset, and not 0


async def test_every_field_reaches_the_handler(http: Served) -> None:
    answer = await http.client.post("/v1/search", json=FULL)
    assert answer.status_code == 200, answer.text
    [asked] = http.search.asked
    assert (asked.query, asked.top_k, asked.tenant, list(asked.embedding)) == ("apples", 3, "acme", [0.5, 1])
    first, second, third, fourth = asked.filter.all_of.filters
    assert first.equals.value.integer == 2**60
    assert second.negated.exists == "source"
    assert third.range.at_least.time.ToJsonString() == "2026-01-02T03:04:05.500Z"
    assert [value.WhichOneof("value") for value in fourth.is_in.values] == ["text", "truth", "number"]
    assert asked.fusion.HasField("dense_weight")
    assert not asked.fusion.HasField("sparse_weight")
    assert asked.min_score == -0.25
    assert list(asked.read_mask.paths) == ["groups.hits.char_start", "timings"]
    assert asked.consistency == search_pb2.READ_CONSISTENCY_ALL
    assert asked.explain


async def test_the_other_methods_answer(http: Served) -> None:
    retrieved = await http.client.post("/v1/retrieve", json={"query": "apples", "token_budget": 100})
    assert (retrieved.status_code, retrieved.json()["context"]) == (200, "[1] Orchard notes")
    similar = await http.client.post("/v1/similar", json={"document_id": "orchard", "min_score": 0.5})
    assert (similar.status_code, similar.json()["documents"]) == (200, [])
    assert [type(asked).__name__ for asked in http.search.asked] == ["RetrieveRequest", "SimilarDocumentsRequest"]


async def test_a_documents_chunks_are_read_page_by_page(http: Served) -> None:
    answer = await http.client.get("/v1/documents/orchard/chunks?chunk_index_first=1&page_size=2&tenant=acme")
    assert answer.status_code == 200
    assert [chunk["chunk_index"] for chunk in answer.json()["chunks"]] == [1, 2]
    assert http.search.asked[0].tenant == "acme"


@pytest.mark.parametrize("document_id", ["a/b.md", "a%2Fb.md", "ü%20%3F%23", "..%2F..%2Fetc", "-", "chunks"])
async def test_ids_of_documents_may_be_anything(http: Served, document_id: str) -> None:
    answer = await http.client.get(f"/v1/documents/{document_id}/chunks")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
    wanted = {"a%2Fb.md": "a/b.md", "ü%20%3F%23": "ü ?#", "..%2F..%2Fetc": "../../etc"}.get(document_id, document_id)
    assert http.search.asked[0].document_id == wanted


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"query": "a", "quary": "b"}, "quary", "quary is not known; correct its name or leave it out."),
        ({"query": 3}, "query", "query is 3: Input should be a valid string."),
        ({"query": "a", "top_k": "5"}, "top_k", "top_k is '5': Input should be a valid integer."),
        ({"query": "a", "top_k": -1}, "top_k", "top_k is -1: Input should be greater than or equal to 0."),
        ({"query": "a", "top_k": 2**32}, "top_k", "less than or equal to 4294967295"),
        ({"query": "a", "top_k": True}, "top_k", "top_k is True"),
        ({"query": "a", "mode": "SEARCH_MODE_FAST"}, "mode", "mode is 'SEARCH_MODE_FAST': Input should be"),
        ({"query": "a", "mode": 77}, "mode", "mode is 77"),
        ({"query": None}, "query", "query is None"),
        ({"query": "a", "embedding": [1, "x"]}, "embedding[1]", "embedding[1] is 'x'"),
        ({"query": "a", "min_score": 1e999}, "min_score", "min_score is inf: Input should be a finite number."),
        ({"query": "a", "read_mask": "Hits"}, "read_mask", "read_mask is 'Hits'"),
        ({"query": "a", "filter": {"exists": "a", "equals": {}}}, "filter", "equals and exists are given; give one"),
        ({"query": "a", "filter": {"nope": 1}}, "filter.nope", "filter.nope is not known"),
        (
            {"query": "a", "filter": {"equals": {"field": "x", "value": {"time": "yesterday"}}}},
            "filter.equals.value.time",
            "filter.equals.value.time is 'yesterday'",
        ),
        (
            {"query": "a", "filter": {"equals": {"field": "x", "value": {"time": "0001-01-01T00:00:00+14:00"}}}},
            "body",
            "Timestamp is not valid",
        ),
        ({"query": "a\ud800"}, "body", "cannot be read as SearchRequest"),
        ({"query": " "}, "query", "query is empty or only white space; say what to look for."),
        ([], "body", "The body is not a JSON object; send one, with content-type: application/json."),
        ("text", "body", "The body is not a JSON object"),
    ],
)
async def test_bad_input_names_the_field(http: Served, body: Any, field: str, message: str) -> None:
    import json

    headers = {"content-type": "application/json"}
    answer = await http.client.post("/v1/search", content=json.dumps(body), headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("INVALID_ARGUMENT", field)
    assert message in error["message"]


@pytest.mark.parametrize(
    ("content", "content_type", "message"),
    [
        (b"{", "application/json", "The body is not JSON: "),
        (b"", "application/json", "body is missing; send JSON, with content-type: application/json."),
        (b'{"query": "a"}', "text/plain", "The body is not a JSON object"),
        (b'{"query": "\xff"}', "application/json", "The body is not JSON"),
        (b"[" * 30_000, "application/json", "The body is not JSON"),
        (b'{"filter":{"negated":' * 2000 + b"{}" + b"}}" * 2000, "application/json", ""),
    ],
)
async def test_what_is_no_json_is_refused(http: Served, content: bytes, content_type: str, message: str) -> None:
    answer = await http.client.post("/v1/search", content=content, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_ARGUMENT"
    assert message in answer.json()["error"]["message"]


async def test_long_values_are_not_sent_back_whole(http: Served) -> None:
    answer = await http.client.post(
        "/v1/search",
        json={
            "query": "a",
            "mode": "x" * 5000,
        },
    )
    assert len(answer.json()["error"]["message"]) < 400


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (FingerprintMismatch("Another model."), 400, "FAILED_PRECONDITION"),
        (Unauthenticated("Who?"), 401, "UNAUTHENTICATED"),
        (PermissionDenied("No."), 403, "PERMISSION_DENIED"),
        (NotFound("There is none."), 404, "NOT_FOUND"),
        (EncoderUnavailable("The encoder is away."), 503, "UNAVAILABLE"),
        (TimedOut("Too slow."), 504, "DEADLINE_EXCEEDED"),
        (TimeoutError(), 504, "DEADLINE_EXCEEDED"),
    ],
)
async def test_errors_have_their_status(http: Served, error: Exception, status: int, code: str) -> None:
    http.search.error = error
    answer = await http.client.post("/v1/search", json={"query": "apples"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


async def test_who_is_busy_says_when_to_come_again(http: Served) -> None:
    http.search.error = Overloaded("Too many searches; try again in 0.5 s.", 0.5)
    answer = await http.client.post("/v1/search", json={"query": "apples"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["error"] == {
        "code": "RESOURCE_EXHAUSTED",
        "message": "Too many searches; try again in 0.5 s.",
        "retry_after_s": 0.5,
    }


async def test_unforeseen_failures_are_logged_but_not_shown(http: Served, caplog: pytest.LogCaptureFixture) -> None:
    http.search.error = KeyError("my secret")
    answer = await http.client.post("/v1/search", json={"query": "my secret"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "INTERNAL")
    incident = answer.json()["error"]["message"].partition("incident ")[2].partition(")")[0]
    assert len(incident) == 12
    assert incident in caplog.text
    assert "KeyError" in caplog.text
    assert "secret" not in answer.text + caplog.text


async def test_a_search_has_a_time_limit() -> None:
    async with served(timeout_s=0.1) as http:
        http.search.delay_s = 30
        answer = await http.client.post("/v1/search", json={"query": "apples"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "DEADLINE_EXCEEDED")
    assert http.search.finished == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/v1/search", 405, "UNIMPLEMENTED"),
        ("PUT", "/v1/jobs", 405, "UNIMPLEMENTED"),
        ("GET", "/v1/search/", 404, "NOT_FOUND"),
    ],
)
async def test_what_is_not_there_is_said_so(http: Served, method: str, path: str, status: int, code: str) -> None:
    answer = await http.client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
