"""Jobs in a database that several processes share: SQLite, and PostgreSQL where a test has one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from encoder.errors import InvalidInput, MambaSearchError, NotFound, Overloaded
from ingest.filters import AllOf, AnyOf, Equals, Exists, IdPrefix, IsIn, Not, Range
from ingest.jobs import store as store_module
from ingest.jobs.dead_letters import list_letters, storable
from ingest.jobs.requests import JobKind, JobRequest, check_request
from ingest.jobs.states import Counts, Failure, Job, JobState, Settled
from ingest.jobs.store import JobStore, LeaseLost
from ingest.receipts import Stage
from tests.pipelining import Clock

SOURCES = JobRequest(JobKind.INGEST, sources=("/a", "/b"))
Stores = tuple[JobStore, JobStore]


def settled(number: int, error: MambaSearchError | None = None, place: str = "") -> Settled:
    counts = Counts(failed=1) if error else Counts(ingested=1, chunks=2, tokens=10, bytes_done=40)
    failure = Failure(Stage.READ, error) if error else None
    return Settled(f"item {number}".encode(), place or f"/a/{number}", "default", f"d{number}", counts, failure)


async def claimed(store: JobStore) -> Job:
    job = await store.claim()
    assert job
    return job


async def test_a_request_makes_one_job_however_often_it_comes(stores: Stores) -> None:
    one, other = stores
    made = await asyncio.gather(*(store.create("r", SOURCES) for store in (one, other, one)))
    assert len({job.job_id for job in made}) == 1
    assert made[0] == await other.get(made[0].job_id)
    with pytest.raises(InvalidInput, match=r"request_id 'r' was another request's, which made job \w+\. Give a new"):
        await other.create("r", JobRequest(JobKind.INGEST, sources=("/a",)))


async def test_requests_survive_the_database_as_they_are(stores: Stores) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    where = AllOf(
        (
            AnyOf((Equals("title", "é\0"), Equals("metadata.yes", value=True), IsIn("metadata.n", (1, 1.5, moment)))),
            Not(Range("ingested_at", above=moment)),
            Range("metadata.n", at_least=1, below=2.5),
            Exists("source"),
            IdPrefix("a/"),
        )
    )
    metadata = {"time": moment, "texts": ("a", "b"), "one": 1, "half": 0.5, "no": False, "text": "2026-01-02T03:04:05Z"}
    for number, request in enumerate(
        (
            JobRequest(JobKind.INGEST, "acme", ("/a", "https://b/c"), metadata),
            JobRequest(JobKind.DELETE, "acme", where=where),
        )
    ):
        check_request(request)
        job = await stores[0].create(str(number), request)
        assert (await stores[1].get(job.job_id)).request == request


async def test_jobs_are_claimed_once_the_oldest_first(stores: Stores, clock: Clock) -> None:
    one, other = stores
    assert await one.claim() is None
    made = []
    for number in range(3):
        clock.now += 1
        made.append((await one.create(str(number), SOURCES)).job_id)
    found = [await claimed(store) for store in (one, other, one)]
    assert [job.job_id for job in found] == made
    assert {job.state for job in found} == {JobState.RUNNING}
    assert await other.claim() is None


async def test_an_owner_that_dies_loses_its_job_and_can_write_no_more(stores: Stores, clock: Clock) -> None:
    one, other = stores
    await one.create("r", SOURCES)
    job = await claimed(one)
    await one.record(job, [settled(1), settled(2)], 1.5)
    clock.now += 29
    await one.record(job, [], 0)
    clock.now += 29
    assert await other.claim() is None
    clock.now += 2
    taken = await claimed(other)
    assert (taken.counts.documents, taken.failed_attempts, taken.active_s) == (2, 1, 1.5)
    for call in (
        one.record(job, [settled(3)], 0),
        one.wait(job, "x", 1),
        one.release(job),
        one.finish(job, JobState.SUCCEEDED),
        one.note_size(job, 3),
    ):
        with pytest.raises(LeaseLost):
            await call
    assert await other.settled(job.job_id, [f"item {number}".encode() for number in range(9)]) == {b"item 1", b"item 2"}
    job = await other.record(taken, [settled(2), settled(3)], 1)
    assert job.counts == Counts(ingested=3, chunks=6, tokens=30, bytes_done=120)
    assert job.failed_attempts == 0
    await other.finish(job, JobState.SUCCEEDED)
    with pytest.raises(LeaseLost):
        await other.record(job, [], 0)


async def test_a_job_waits_and_is_tried_again_when_it_is_time(stores: Stores, clock: Clock) -> None:
    one, other = stores
    await one.create("r", SOURCES)
    await one.wait(await claimed(one), "The encoder is away.", 10)
    (job,) = await one.list_jobs(tenant="", state=JobState.WAITING, after=None, limit=9)
    assert (job.reason, job.failed_attempts, job.next_attempt_at) == ("The encoder is away.", 1, clock.now + 10)
    assert await other.claim() is None
    clock.now += 10
    job = await claimed(other)
    await other.release(job)
    assert (await claimed(one)).failed_attempts == 1


async def test_a_job_is_cancelled_across_processes(stores: Stores) -> None:
    one, other = stores
    queued = await one.create("q", SOURCES)
    assert (await other.cancel(queued.job_id)).state is JobState.CANCELLED
    running = await one.create("r", SOURCES)
    job = await claimed(one)
    assert (await other.cancel(running.job_id)).state is JobState.RUNNING
    assert (await one.record(job, [], 0)).cancel_requested
    await one.finish(job, JobState.CANCELLED)
    assert not (await one.cancel(running.job_id)).cancel_requested
    with pytest.raises(NotFound, match="There is no job 'nobody'"):
        await one.cancel("nobody")


async def test_jobs_and_letters_are_listed_page_by_page(stores: Stores, clock: Clock) -> None:
    one, _ = stores
    for number in range(7):
        clock.now += number % 2  # some at one moment
        await one.create(str(number), JobRequest(JobKind.INGEST, ("", "acme")[number % 2], ("/a",)))
    found: list[Job] = []
    while page := await one.list_jobs(
        tenant="", state=None, after=(found[-1].created_at, found[-1].job_id) if found else None, limit=3
    ):
        found += page
    assert len({job.job_id for job in found}) == 7
    assert [job.created_at for job in found] == sorted((job.created_at for job in found), reverse=True)
    assert len(await one.list_jobs(tenant="acme", state=None, after=None, limit=9)) == 3
    assert await one.list_jobs(tenant="", state=JobState.FAILED, after=None, limit=9) == []
    job = await claimed(one)
    bad = InvalidInput("text", "It is\0 \ud800 bad.")
    await one.record(job, [settled(number, bad) for number in range(5)], 0)
    letters = await list_letters(one.database, job_id=job.job_id, tenant="", after=None, limit=3)
    last = (letters[-1].first_failed_at, letters[-1].letter_id)
    letters += await list_letters(one.database, job_id="", tenant="default", after=last, limit=3)
    assert sorted(letter.document_id for letter in letters) == [f"d{number}" for number in range(5)]
    assert {letter.reason for letter in letters} == {"It is\ufffd ? bad."}
    assert {(letter.code, letter.field, letter.attempts) for letter in letters} == {(3, "text", 1)}


async def test_a_replay_takes_letters_and_gives_back_what_it_does_not_come_to(stores: Stores) -> None:
    one, other = stores
    bad = InvalidInput("text", "Bad.")
    first = await one.create("r", SOURCES)
    job = await one.record(await claimed(one), [settled(number, bad) for number in range(3)], 0)
    await one.finish(job, JobState.SUCCEEDED)
    request = JobRequest(JobKind.REPLAY, sources=("/a",), replays=first.job_id)
    replay = await other.create("again", request)
    assert replay.job_id == (await one.create("again", request)).job_id
    with pytest.raises(NotFound, match="has no such dead letters, or another job replays them already"):
        await one.create("third", request)
    running = await claimed(other)
    await other.record(running, [settled(0), settled(1, bad)], 0)
    left = await list_letters(one.database, job_id=first.job_id, tenant="", after=None, limit=9)
    assert {(letter.place, letter.attempts, letter.replay_job_id) for letter in left} == {
        ("/a/1", 2, ""),
        ("/a/2", 1, replay.job_id),
    }
    await other.finish(running, JobState.FAILED, "Given up.")
    left = await list_letters(one.database, job_id=first.job_id, tenant="", after=None, limit=9)
    assert {letter.replay_job_id for letter in left} == {""}
    chosen = tuple(letter.letter_id for letter in left)
    with pytest.raises(NotFound, match="1 of the dead letters named are not of job"):
        await one.create("fourth", JobRequest(JobKind.REPLAY, replays=first.job_id, letters=(*chosen, "nobody's")))
    assert (
        await one.create("fifth", JobRequest(JobKind.REPLAY, replays=first.job_id, letters=chosen))
    ).counts == Counts()


async def test_what_ended_long_ago_is_forgotten_unless_it_has_letters(stores: Stores, clock: Clock) -> None:
    one, _ = stores
    kept, forgotten = await one.create("kept", SOURCES), await one.create("forgotten", SOURCES)
    for failed in ([settled(1, InvalidInput("text", "Bad."))], []):
        await one.finish(await one.record(await claimed(one), failed, 0), JobState.SUCCEEDED)
    clock.now += store_module.KEPT_S + 1
    await one.create("new", SOURCES)
    left = {job.job_id for job in await one.list_jobs(tenant="", state=JobState.SUCCEEDED, after=None, limit=9)}
    assert len(left & {kept.job_id, forgotten.job_id}) == 1


async def test_the_queue_of_jobs_has_an_end(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "UNFINISHED_MAX", 2)
    for number in range(2):
        await stores[number].create(str(number), SOURCES)
    with pytest.raises(Overloaded, match="2 jobs have not ended, which is the limit"):
        await stores[0].create("third", SOURCES)
    await stores[1].create("1", SOURCES)


@pytest.mark.parametrize(
    ("request_made", "field", "message"),
    [
        (JobRequest(JobKind.INGEST), "sources", "has 0 entries"),
        (JobRequest(JobKind.INGEST, sources=("x",) * 1001), "sources", "has 1001 entries; 1 to 1000"),
        (JobRequest(JobKind.INGEST, sources=("a", "")), "sources[1]", "has 0 characters; 1 to 4096"),
        (JobRequest(JobKind.INGEST, sources=("a", "b", "a")), "sources[2]", "is 'a', which is given before"),
        (JobRequest(JobKind.INGEST, sources=("-",)), "sources[0]", "has no standard input"),
        (JobRequest(JobKind.INGEST, "ten ant", ("a",)), "tenant", "'ten ant' is not 1 to 64"),
        (JobRequest(JobKind.INGEST, sources=("a",), metadata={"A": 1}), "metadata.A", "a name is"),
        (JobRequest(JobKind.DELETE, where=Exists("x")), "filter.x", "names a field 'x'"),
        (JobRequest(JobKind.REPLAY, letters=("x",) * 1001), "dead_letter_ids", "the limit is 1000"),
    ],
)
def test_a_request_beyond_its_limits_is_refused(request_made: JobRequest, field: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        check_request(request_made)
    assert refusal.value.field == field


def test_what_is_stored_is_text_whatever_it_was() -> None:
    assert storable("a\0b\udcff" + "x" * 9000) == ("a\ufffdb?" + "x" * 9000)[:4200]
