"""Embeddings as OpenAI's clients ask for them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from encoder.errors import Overloaded
from tests.fakes import FakeEncoder
from tests.http.serving import Served


async def test_texts_become_embeddings(http: Served) -> None:
    answer = await http.client.post("/v1/embeddings", json={"model": "fake", "input": ["apples", "cold winters"]})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["object"], found["model"]) == ("list", "fake")
    assert found["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert [(one["object"], one["index"]) for one in found["data"]] == [("embedding", 0), ("embedding", 1)]
    expected = (await FakeEncoder().encode_passages(["apples", "cold winters"])).embeddings
    np.testing.assert_array_equal(np.array([one["embedding"] for one in found["data"]], dtype=np.float32), expected)


async def test_base64_holds_the_same_numbers(http: Served) -> None:
    request = {"model": "fake", "input": "apples"}
    plain = (await http.client.post("/v1/embeddings", json=request)).json()["data"][0]["embedding"]
    packed = await http.client.post("/v1/embeddings", json={**request, "encoding_format": "base64"})
    numbers = np.frombuffer(base64.b64decode(packed.json()["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(numbers, np.array(plain, dtype=np.float32))


@pytest.mark.parametrize("ids", [[5, 6, 7], [[5, 6, 7]]])
async def test_token_ids_are_read_as_passages(http: Served, ids: list[Any]) -> None:
    answer = await http.client.post("/v1/embeddings", json={"model": "fake", "input": ids, "dimensions": 384})
    assert (answer.status_code, len(answer.json()["data"])) == (200, 1)
    assert answer.json()["usage"]["total_tokens"] == 4


async def test_a_query_is_read_in_its_own_role(http: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    roles, original = [], FakeEncoder.encode_queries

    async def encode_queries(self: FakeEncoder, queries: list[str]) -> Any:
        roles.append(queries)
        return await original(self, queries)

    monkeypatch.setattr(FakeEncoder, "encode_queries", encode_queries)
    request = {"model": "fake", "input": "apples", "input_type": "query", "user": "ann"}
    assert (await http.client.post("/v1/embeddings", json=request)).status_code == 200
    assert roles == [["apples"]]


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"model": "text-embedding-3-small"}, "model", "which is not served here; 'fake' is."),
        ({"dimensions": 256}, "dimensions", "dimensions is 256; this model's embeddings have 384"),
        ({"input": []}, "input", "input has 0 entries; 1 to 2048 are allowed."),
        ({"input": ["a"] * 2049}, "input", "input has 2049 entries"),
        ({"input": ["a", " "]}, "input[1]", "input[1] is empty or only white space."),
        ({"input": " ", "input_type": "query"}, "input[0]", "input[0] is empty"),
        ({"input": [1, 2], "input_type": "query"}, "input", "send a query as text"),
        ({"input": [99_999]}, "input[0]", "the vocabulary has ids 0 to 32767"),
        ({"input": ["a", 1]}, "input", ""),
        ({"encoding_format": "int8"}, "encoding_format", "encoding_format is 'int8'"),
        ({"input_type": "document"}, "input_type", "input_type is 'document'"),
        ({"temperature": 1}, "temperature", "temperature is not known"),
    ],
)
async def test_bad_input_is_refused_in_openais_words(http: Served, change: dict, param: str, message: str) -> None:
    answer = await http.client.post("/v1/embeddings", json={"model": "fake", "input": "apples", **change})
    error = answer.json()["error"]
    assert answer.status_code == (404 if param == "model" else 400)
    assert error["type"] == ("not_found_error" if param == "model" else "invalid_request_error")
    assert error["code"] == ("model_not_found" if param == "model" else "invalid_argument")
    assert error["param"].startswith(param)
    assert message in error["message"]


async def test_a_full_queue_is_a_rate_limit(http: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def encode_passages(self: FakeEncoder, passages: list[str]) -> Any:
        raise Overloaded("The queue is full; try again in 2 s.", 2.0)

    monkeypatch.setattr(FakeEncoder, "encode_passages", encode_passages)
    answer = await http.client.post("/v1/embeddings", json={"model": "fake", "input": "apples"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert answer.json()["error"]["type"] == "rate_limit_error"
