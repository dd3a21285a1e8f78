"""What stands before and after every request: ids, headers, hosts, origins, and how much one may bring."""

from __future__ import annotations

import asyncio
import re

import pytest
from prometheus_client import CollectorRegistry

from services.http.guard import Limits
from services.observing.call_metrics import CallMetrics
from services.observing.calls import CallObserver
from tests.http.serving import Served, served


async def test_requests_have_ids_in_and_out(http: Served) -> None:
    own = await http.client.get("/healthz", headers={"x-request-id": "mine-1.2_3"})
    assert own.headers["x-request-id"] == "mine-1.2_3"
    for strange in ("", "a b", "x" * 129, "é".encode(), "<script>"):
        answer = await http.client.get("/healthz", headers={b"x-request-id": strange})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/", "/page.js", "/docs", "/openapi.json", "/readyz", "/v1/jobs", "/nothing"])
async def test_every_answer_has_the_headers_that_keep_pages_safe(http: Served, path: str) -> None:
    headers = (await http.client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("[::1]:8080", 200),
        ("192.168.1.5", 200),
        ("search.example", 200),
        ("Search.Example:8080", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("[", 421),
    ],
)
async def test_names_that_others_may_own_are_refused_where_no_key_is_asked_for(
    http: Served, host: str, status: int
) -> None:
    answer = await http.client.get("/v1/jobs", headers={"host": host})
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["field"] == "host"
        assert "http_hosts" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:9", 403),
        ("null", 403),
        ("https://app.example", 403),
    ],
)
async def test_pages_of_other_origins_may_not_ask(http: Served, origin: str, status: int) -> None:
    answer = await http.client.post("/v1/search", json={"query": "a"}, headers={"origin": origin})
    assert answer.status_code == status
    cancelling = await http.client.post("/v1/jobs/x/cancel", headers={"origin": origin})
    assert (cancelling.status_code == 403) == (status == 403)


async def test_origins_that_a_setting_names_may_ask() -> None:
    async with served(origins=["https://app.example"]) as http:
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        preflight = await http.client.options("/v1/search", headers=asked)
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        answer = await http.client.post("/v1/search", json={"query": "a"}, headers={"origin": "https://app.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")
        assert "access-control-allow-credentials" not in answer.headers
        other = await http.client.options("/v1/search", headers={**asked, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_a_long_body_is_refused_before_it_is_read(http: Served) -> None:
    answer = await http.client.post("/v1/search", json={"query": "a" * 70_000})
    assert answer.status_code == 413
    assert answer.json()["error"] == {
        "code": "INVALID_ARGUMENT",
        "message": "The body is longer than 65536 bytes, which is the limit (http_body_bytes_max); send less at once.",
        "field": "body",
    }
    assert answer.headers["connection"] == "close"
    assert not http.search.asked


async def test_more_requests_than_there_are_places_are_refused() -> None:
    limits = Limits(body_bytes_max=1000, body_timeout_s=1, requests_max=2)
    async with served(limits=limits) as http:
        http.search.delay_s = 0.3
        asking = [http.client.post("/v1/search", json={"query": "a"}) for _ in range(3)]
        answers = sorted(await asyncio.gather(*asking), key=lambda answer: answer.status_code)
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert "http_requests_max" in answers[-1].json()["error"]["message"]
        assert answers[-1].headers["retry-after"] == "1"
        http.search.delay_s = 0
        assert (await http.client.post("/v1/search", json={"query": "a"})).status_code == 200


async def test_requests_are_measured_as_calls_of_grpc_are(http: Served) -> None:
    registry = CollectorRegistry()
    http.parts._admission._observer = CallObserver(CallMetrics(registry))
    await http.client.post("/v1/search", json={"query": "a"})
    await http.client.post("/v1/search", json={"query": " "})
    names = {"method": "SearchService/Search"}
    counted = {
        code: registry.get_sample_value("mambasearch_requests_total", {**names, "code": code})
        for code in ("OK", "INVALID_ARGUMENT")
    }
    assert counted == {"OK": 1, "INVALID_ARGUMENT": 1}
