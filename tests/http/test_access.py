"""Keys, roles, tenants, quotas and the audit log over HTTP: the same door as gRPC's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from services.door.audit import AuditLog
from services.door.authenticating import Authenticator
from services.door.door import Door
from services.door.key_ring import KeyRing, create_key, revoke_key
from services.door.keys import KeyWishes
from services.door.places import Places
from services.door.principal import Limits, Role
from services.door.quotas import Quotas
from services.http.calling import WATCH_JOB
from services.http.service_routes import OPEN_PATHS
from services.observing.call_metrics import CallMetrics
from services.observing.calls import CallObserver
from tests.http.serving import Served, served

SEARCH = {"query": "apples"}


@dataclass
class Locked:
    http: Served
    keys: dict[str, str]
    ids: dict[str, str]
    file: Path
    audit: Path
    door: Door

    async def ask(self, who: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.keys.get(who, who)}"}
        return await self.http.client.request(method, path, headers=headers, **options)

    def noted(self) -> list[dict[str, Any]]:
        self.door.audit.close()
        return [json.loads(line) for line in (self.audit / "audit-search.jsonl").read_text().splitlines()]


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Locked]:
    file, keys, ids = tmp_path / "keys.json", dict[str, str](), dict[str, str]()
    wishes = {
        "searcher": KeyWishes("searcher", (Role.SEARCH,), ("acme",)),
        "ingester": KeyWishes("ingester", (Role.INGEST,), ("acme",)),
        "two": KeyWishes("two", (Role.SEARCH,), ("acme", "zeta")),
        "admin": KeyWishes("admin", (Role.ADMIN,), "*"),
        "poor": KeyWishes("poor", (Role.SEARCH,), ("acme",), limits=Limits(tokens_per_s=1, tokens_burst=1)),
    }
    for name, wish in wishes.items():
        entry, key = create_key(file, wish)
        assert key is not None
        keys[name], ids[name] = key, entry.id
    door = Door(
        Authenticator(ring=KeyRing(file)),
        Quotas(Limits()),
        AuditLog("search", str(tmp_path / "audit")),
        Places(100),
        {WATCH_JOB: Places(1)},
    )
    async with served(door) as http:
        yield Locked(http, keys, ids, file, tmp_path / "audit", door)
    door.audit.close()


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer nonsense", "Basic YTpi", "Bearer ms_000000000000_" + "a" * 43]
)
async def test_without_a_good_key_nothing_is_answered(locked: Locked, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    for method, path in [("POST", "/v1/search"), ("GET", "/v1/jobs"), ("GET", "/metrics"), ("GET", "/nothing")]:
        answer = await locked.http.client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert not locked.http.search.asked


async def test_two_keys_at_once_are_refused(locked: Locked) -> None:
    shown = [("authorization", f"Bearer {locked.keys['searcher']}"), ("authorization", "Bearer x")]
    assert (await locked.http.client.post("/v1/search", json=SEARCH, headers=shown)).status_code == 401


async def test_a_body_is_not_read_before_its_sender_is_known(locked: Locked) -> None:
    answer = await locked.http.client.post("/v1/search", content=b"x" * 70_000)
    assert answer.status_code == 401  # and not 413


async def test_requests_that_come_to_no_method_are_counted_by_what_refused_them(locked: Locked) -> None:
    registry = CollectorRegistry()
    locked.http.parts._admission._observer = CallObserver(CallMetrics(registry))
    await locked.http.client.post("/v1/search", json=SEARCH)
    await locked.ask("nobody", "GET", "/nothing")
    for path in ("/nothing", "/v1/nothing"):
        await locked.ask("searcher", "GET", path)
    await locked.ask("searcher", "GET", "/v1/search")
    await locked.ask("searcher", "POST", "/v1/search", content=b"x" * 70_000)
    await locked.ask("searcher", "POST", "/v1/search", json={"mode": 3})
    await locked.ask("searcher", "GET", "/metrics")
    # Nothing of these is refused there.
    await locked.ask("nobody", "GET", "/readyz")
    await locked.ask("searcher", "POST", "/v1/search", json=SEARCH)
    await locked.ask("ingester", "POST", "/v1/search", json=SEARCH)
    counted = {
        (sample.labels["method"], sample.labels["code"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "mambasearch_requests_total"
    }
    assert counted == {
        ("http/refused", "UNAUTHENTICATED"): 2,
        ("http/refused", "NOT_FOUND"): 2,
        ("http/refused", "UNIMPLEMENTED"): 1,
        ("http/refused", "INVALID_ARGUMENT"): 2,
        ("http/refused", "PERMISSION_DENIED"): 1,
        ("SearchService/Search", "OK"): 1,
        ("SearchService/Search", "PERMISSION_DENIED"): 1,
    }


async def test_the_page_and_health_need_no_key(locked: Locked) -> None:
    for path in sorted(OPEN_PATHS):
        assert (await locked.http.client.get(path)).status_code == 200, path


async def test_the_caller_is_the_keys_and_the_tenant_its_own(locked: Locked) -> None:
    assert (await locked.ask("searcher", "POST", "/v1/search", json=SEARCH)).status_code == 200
    assert locked.http.search.asked[0].tenant == "acme"
    assert locked.http.search.callers == [f"key:{locked.ids['searcher']}"]


@pytest.mark.parametrize("tenant", ["zeta", "default", "no-such"])
async def test_another_tenant_is_refused_whether_it_exists_or_not(locked: Locked, tenant: str) -> None:
    asked = [
        await locked.ask("searcher", "POST", "/v1/search", json={**SEARCH, "tenant": tenant}),
        await locked.ask("searcher", "POST", "/v1/retrieve", json={**SEARCH, "tenant": tenant}),
        await locked.ask("searcher", "POST", "/v1/similar", json={"document_id": "orchard", "tenant": tenant}),
        await locked.ask("searcher", "GET", f"/v1/documents/orchard/chunks?tenant={tenant}"),
        await locked.ask("ingester", "GET", f"/v1/jobs?tenant={tenant}"),
        await locked.ask("ingester", "GET", f"/v1/dead-letters?tenant={tenant}"),
        await locked.ask("ingester", "POST", "/v1/jobs", json={"sources": ["/a"], "tenant": tenant}),
    ]
    assert {answer.status_code for answer in asked} == {403}
    assert {answer.json()["error"]["message"] for answer in asked} == {
        f"tenant '{tenant}' is not one of this caller's; name one that is."
    }
    assert not locked.http.search.asked
    assert not locked.http.ingest.metadata


async def test_who_has_several_tenants_names_one(locked: Locked) -> None:
    answer = await locked.ask("two", "POST", "/v1/search", json=SEARCH)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "tenant")
    assert (await locked.ask("two", "POST", "/v1/search", json={**SEARCH, "tenant": "zeta"})).status_code == 200


async def test_roles_say_what_a_key_may_do(locked: Locked) -> None:
    request = {"model": "fake", "input": "apples"}
    allowed = {
        ("searcher", "POST", "/v1/search"): 200,
        ("ingester", "POST", "/v1/search"): 403,
        ("searcher", "GET", "/v1/jobs"): 403,
        ("ingester", "GET", "/v1/jobs"): 200,
        ("searcher", "GET", "/metrics"): 403,
        ("admin", "GET", "/metrics"): 200,
        ("admin", "POST", "/v1/search"): 200,
        ("admin", "GET", "/v1/jobs"): 200,
    }
    for (who, method, path), status in allowed.items():
        options = {"json": SEARCH} if method == "POST" else {}
        assert (await locked.ask(who, method, path, **options)).status_code == status, (who, path)
    for who in ("searcher", "ingester"):
        assert (await locked.ask(who, "POST", "/v1/embeddings", json=request)).status_code == 200
    for path in ("/v1/jobs/a", "/v1/jobs/a/events"):
        assert (await locked.ask("searcher", "GET", path)).status_code == 403
    for path in ("/v1/jobs/a/cancel", "/v1/jobs/a/replay"):
        assert (await locked.ask("searcher", "POST", path, json={})).status_code == 403


async def test_errors_of_the_door_are_openais_at_embeddings(locked: Locked) -> None:
    answer = await locked.ask("nonsense", "POST", "/v1/embeddings", json={"model": "fake", "input": "a"})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


async def test_tokens_are_charged_to_the_key(locked: Locked) -> None:
    assert (await locked.ask("poor", "POST", "/v1/search", json=SEARCH)).status_code == 200  # 7 tokens, on credit
    refused = await locked.ask("poor", "POST", "/v1/search", json=SEARCH)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "RESOURCE_EXHAUSTED")
    assert 5 <= refused.json()["error"]["retry_after_s"] <= 7
    assert 5 <= int(refused.headers["retry-after"]) <= 7
    assert (await locked.ask("searcher", "POST", "/v1/search", json=SEARCH)).status_code == 200


async def test_the_worker_hears_the_callers_key_and_none_of_ours(locked: Locked) -> None:
    await locked.ask("ingester", "GET", "/v1/jobs")
    assert locked.http.ingest.metadata[-1]["authorization"] == f"Bearer {locked.keys['ingester']}"


async def test_jobs_are_followed_by_so_many_and_as_long_as_the_key_is_good(
    locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.door.key_ring.LOOK_PERIOD_S", 0.0)
    locked.http.ingest.steps = 10_000
    job_id = (await locked.ask("ingester", "POST", "/v1/jobs", json={"sources": ["/a"]})).json()["job_id"]
    following = asyncio.ensure_future(locked.ask("ingester", "GET", f"/v1/jobs/{job_id}/events"))
    await locked.http.ingest.until_watched()
    refused = await locked.ask("ingester", "GET", f"/v1/jobs/{job_id}/events")
    assert "event: error" in refused.text
    assert "RESOURCE_EXHAUSTED" in refused.text
    revoke_key(locked.file, locked.ids["ingester"])
    said = (await asyncio.wait_for(following, 10)).text
    assert said.splitlines()[-3] == "event: error"
    assert "UNAUTHENTICATED" in said


async def test_the_audit_log_says_who_did_what_and_no_texts(locked: Locked) -> None:
    await locked.ask("searcher", "POST", "/v1/search", json={"query": "a marker text"})
    await locked.ask("searcher", "GET", "/v1/documents/orchard/chunks")
    await locked.ask("ingester", "POST", "/v1/search", json=SEARCH)
    await locked.ask("ms_nonsense", "POST", "/v1/search", json=SEARCH)
    noted = locked.noted()
    assert [(entry["method"].rpartition("/")[2], entry["code"], entry["outcome"]) for entry in noted] == [
        ("Search", "OK", "ok"),
        ("ListChunks", "OK", "ok"),
        ("Search", "PERMISSION_DENIED", "refused"),
        ("search", "UNAUTHENTICATED", "refused"),
    ]
    assert [entry["who"] for entry in noted[:3]] == [
        f"key:{locked.ids[name]}" for name in ("searcher", "searcher", "ingester")
    ]
    assert [entry["tenant"] for entry in noted] == ["acme", "acme", "acme", ""]
    assert noted[1]["thing"] == "orchard"
    assert all(len(entry["request_id"]) == 32 for entry in noted)
    assert "marker" not in json.dumps(noted)
    assert "ms_nonsense" not in json.dumps(noted)
