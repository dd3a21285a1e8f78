"""OpenAPI says what there is, and whatever is sent by it, or against it, has an honest answer."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.serving import Served

BODIES = {
    "/v1/search": ["query", "mode", "top_k", "tenant", "embedding", "filter", "group_by_document", "read_mask"],
    "/v1/retrieve": ["query", "token_budget", "filter", "order", "fusion", "min_score"],
    "/v1/similar": ["document_id", "top_k", "filter", "consistency"],
    "/v1/embeddings": ["model", "input", "encoding_format", "dimensions", "input_type"],
    "/v1/jobs": ["request_id", "sources", "tenant", "metadata"],
    "/v1/jobs/job-0/replay": ["request_id", "dead_letter_ids"],
}
WORDS = st.sampled_from(
    ["a", "fake", "SEARCH_MODE_DENSE", "float", "equals", "field", "value", "text", "time", "0001-01-01T00:00:00Z"]
)
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | WORDS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)


async def test_every_path_is_described(http: Served) -> None:
    spec = (await http.client.get("/openapi.json")).json()
    assert set(BODIES) - {"/v1/jobs/job-0/replay"} < set(spec["paths"])
    operations = [operation for methods in spec["paths"].values() for operation in methods.values()]
    assert all(operation["description"] or operation["summary"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    query = spec["components"]["schemas"]["SearchRequest"]["properties"]["query"]
    assert query["description"].startswith("What to look for, in natural language.")
    refused = spec["paths"]["/v1/search"]["post"]["responses"]["400"]["content"]["application/json"]["schema"]
    assert set(refused["properties"]["error"]["properties"]) == {"code", "message", "field", "retry_after_s"}
    page = (await http.client.get("/docs")).text
    assert "http://" not in page
    assert "https://" not in page


async def test_no_body_breaks_anything(http: Served) -> None:
    @settings(max_examples=300, deadline=None, database=None)
    @given(data=st.data())
    def draw_one(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(BODIES)))
        drawn.append((path, data.draw(st.dictionaries(st.sampled_from(BODIES[path]), VALUES, max_size=4))))

    drawn: list[tuple[str, Any]] = []
    draw_one()
    headers = {"content-type": "application/json"}
    for path, body in drawn:
        answer = await http.client.post(path, content=json.dumps(body), headers=headers)
        assert answer.status_code in {200, 201, 400, 404}, (path, body, answer.text)
        assert answer.status_code < 400 or answer.json()["error"]["message"]
