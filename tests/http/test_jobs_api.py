"""Jobs over HTTP: the worker is asked with what the caller sent, and progress comes as events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from mambasearch.v1 import jobs_pb2

from encoder.errors import NotFound
from services.http import job_events as events_module
from services.http.job_events import job_events
from services.http.worker import Worker
from tests.http.serving import Served


async def created(http: Served) -> str:
    answer = await http.client.post("/v1/jobs", json={"sources": ["/srv/texts"], "metadata": {"batch": {"text": "1"}}})
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"] == {"batch": {"text": "1"}}
    return str(answer.json()["job_id"])


def events_of(text: str) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def test_a_job_is_made_shown_listed_cancelled_and_replayed(http: Served) -> None:
    job_id = await created(http)
    shown = (await http.client.get(f"/v1/jobs/{job_id}")).json()
    assert (shown["sources"], shown["state"], shown["created_at"]) == (
        ["/srv/texts"],
        "JOB_STATE_RUNNING",
        "2026-09-21T14:13:20Z",
    )
    assert shown["progress"]["bytes_total"] == 1000  # a number: JSON of protobuf itself would have a string
    assert "ended_at" not in shown
    listed = (await http.client.get("/v1/jobs?page_size=1&state=JOB_STATE_RUNNING")).json()
    assert [job["job_id"] for job in listed["jobs"]] == [job_id]
    ended = (await http.client.post(f"/v1/jobs/{job_id}/cancel")).json()
    assert ended["state"] == "JOB_STATE_CANCELLED"
    letters = (await http.client.get(f"/v1/dead-letters?job_id={job_id}")).json()["dead_letters"]
    assert (letters[0]["reason"], letters[0]["stage"]) == ("a.pdf is broken.", "INGEST_STAGE_READ")
    again = await http.client.post(f"/v1/jobs/{job_id}/replay", json={"dead_letter_ids": ["x"]})
    assert (again.status_code, again.json()["kind"], again.json()["sources"]) == (201, "JOB_KIND_REPLAY", [job_id])


async def test_the_worker_hears_the_callers_key_and_request_id(http: Served) -> None:
    headers = {"authorization": "Bearer ms_key", "x-request-id": "r-1", "traceparent": "00-1-2-01", "cookie": "a=b"}
    await http.client.get("/v1/jobs", headers=headers)
    told = http.ingest.metadata[-1]
    assert (told["authorization"], told["x-request-id"], told["traceparent"]) == ("Bearer ms_key", "r-1", "00-1-2-01")
    assert "cookie" not in told


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/jobs?page_size=many", "page_size"),
        ("/v1/jobs?state=RUNNING", "state"),
        ("/v1/jobs?limit=3", "limit"),
        ("/v1/dead-letters?job=3", "job"),
    ],
)
async def test_bad_parameters_are_named(http: Served, path: str, field: str) -> None:
    answer = await http.client.get(path)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


@pytest.mark.parametrize("path", ["/v1/jobs/none", "/v1/jobs/none/events", "/v1/jobs/..%2F..%2Fetc%2Fpasswd"])
async def test_unknown_jobs_are_not_found(http: Served, path: str) -> None:
    answer = await http.client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_a_worker_that_is_away_is_said_so(http: Served) -> None:
    await http.parts._worker.close()
    http.parts._worker = Worker.connect("127.0.0.1:1", 1.0)
    answer = await http.client.get("/v1/jobs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "UNAVAILABLE")
    assert "the ingestion worker at 127.0.0.1:1 cannot be reached" in answer.json()["error"]["message"].lower()


async def test_progress_comes_as_events_until_the_job_has_ended(http: Served) -> None:
    job_id = await created(http)
    answer = await http.client.get(f"/v1/jobs/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = events_of(answer.text)
    assert [name for name, _ in events] == ["job", "job", "job", "end"]
    assert [data["progress"]["documents"] for _, data in events[:-1]] == [1, 2, 3]
    assert events[2][1]["state"] == "JOB_STATE_SUCCEEDED"


async def test_who_hangs_up_is_followed_no_more(http: Served) -> None:
    http.ingest.steps = 10_000
    job_id = await created(http)
    async with http.socket() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        async with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    break
            assert http.ingest.watched == 1
        for _ in range(100):
            if not http.ingest.watched:
                break
            await asyncio.sleep(0.02)
    assert http.ingest.watched == 0


async def test_a_service_that_stops_ends_its_streams(http: Served) -> None:
    http.ingest.steps = 10_000
    job_id = await created(http)
    following = asyncio.ensure_future(http.client.get(f"/v1/jobs/{job_id}/events"))
    await http.ingest.until_watched()
    http.parts.stopping.set()
    events = events_of((await asyncio.wait_for(following, 5)).text)
    assert {name for name, _ in events} <= {"job"}  # no end: a reader asks again elsewhere
    assert (await http.client.get("/readyz")).status_code == 503


async def test_a_silent_job_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "PING_PERIOD_S", 0.02)

    async def silent() -> Any:
        yield jobs_pb2.Job(job_id="a")
        await asyncio.sleep(0.1)

    said = [event async for event in job_events(silent(), asyncio.Event())]
    assert said[0] == "retry: 2000\n\n"
    assert said[1].startswith("event: job\n")
    assert said[2] == ": still there\n\n"
    assert said[-1] == "event: end\ndata: {}\n\n"


async def test_a_job_that_cannot_be_followed_any_more_says_why(http: Served) -> None:
    http.ingest.steps = 10_000
    job_id = await created(http)
    following = asyncio.ensure_future(http.client.get(f"/v1/jobs/{job_id}/events"))
    await http.ingest.until_watched()
    http.ingest.error = NotFound("There is no job any more.")
    name, data = events_of((await asyncio.wait_for(following, 5)).text)[-1]
    assert (name, data) == ("error", {"code": "NOT_FOUND", "message": "There is no job any more."})
