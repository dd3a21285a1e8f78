"""Jobs at work: each document one outcome, what is away waited for, what is killed gone on with."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from encoder.errors import EncoderUnavailable, IndexUnavailable, MambaSearchError
from ingest.chunking import Chunk, Chunker
from ingest.documents import Document
from ingest.filters import IdPrefix
from ingest.jobs.requests import JobKind, JobRequest
from ingest.jobs.running import JobRunner
from ingest.jobs.states import Counts, Job, JobState
from ingest.jobs.store import JobStore
from ingest.receipts import Stage
from tests.job_running import create, ended, letters_of, make_runner, running
from tests.jobs.conftest import Parts
from tests.loading.files import write
from tests.pipelining import make_document, records_of

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


def write_texts(folder: Path, count: int, word: str = "word") -> Path:
    for number in range(count):
        write(folder / f"{number:03}.txt", make_document(f"d{number}", 3, word).text)
    return folder


def outcomes(job: Job) -> tuple[int, int, int]:
    return job.counts.ingested, job.counts.unchanged, job.counts.failed


async def run(parts: Parts, job: Job, runner: JobRunner | None = None) -> Job:
    async with running(runner or make_runner(parts.journal.database, parts.worker)):
        return await ended(parts.store, job)


async def test_a_job_ingests_what_its_sources_hold(parts: Parts, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", '{"id": "a", "text": "one", "metadata": {"year": 1}}\n{"id": "b", "text": "two"}\n')
    write_texts(tmp_path / "folder", 3)
    request = {"metadata": {"year": 2020, "batch": "x"}, "tenant": "acme"}
    job = await create(parts.store, tmp_path / "rows.jsonl", tmp_path / "folder", **request)
    assert job.state is JobState.QUEUED
    job = await run(parts, job)
    assert (job.state, outcomes(job), job.reason) == (JobState.SUCCEEDED, (5, 0, 0), "")
    assert job.counts.documents == 5
    assert job.counts.chunks >= 5
    assert job.counts.tokens > 20
    text_bytes = sum(path.stat().st_size for path in (tmp_path / "folder").iterdir())
    assert job.counts.bytes_done == text_bytes + 6
    assert 0 < job.started_at <= job.ended_at
    records, _ = await parts.index.list_records("acme", "", 10)
    assert {record.document_id for record in records} == {"a", "b", "000.txt", "001.txt", "002.txt"}
    assert all(record.metadata["year"] == 2020 and record.metadata["batch"] == "x" for record in records)
    again = await run(parts, await create(parts.store, tmp_path / "folder", **request))
    assert outcomes(again) == (0, 3, 0)


async def test_the_size_of_the_sources_is_known_where_it_can_be(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 2)
    gate = asyncio.Event()
    encode = parts.encoder.encode_passages

    async def wait(passages: list[str]) -> object:
        await gate.wait()
        return await encode(passages)

    parts.encoder.encode_passages = wait  # type: ignore[method-assign,assignment]
    job = await create(parts.store, tmp_path)
    async with running(make_runner(parts.journal.database, parts.worker)), asyncio.timeout(20):
        while (await parts.store.get(job.job_id)).bytes_total is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        gate.set()
        job = await ended(parts.store, job)
    assert job.bytes_total == job.counts.bytes_done
    assert job.left_s is None


async def test_what_fails_alone_is_a_dead_letter_and_the_rest_goes_on(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ['{"id": "poisoned", "text": "poison"}', '{"id": "good", "text": "fine"}', "{broken"]
    path = write(tmp_path / "rows.jsonl", "\n".join(rows) + '\n{"id": "odd", "text": "odd odd"}\n')
    chunk = Chunker.chunk

    def chunk_or_fail(self: Chunker, document: Document, language: str, *, begin: int) -> list[Chunk]:
        if document.document_id == "odd":
            raise KeyError("a user's text")
        return chunk(self, document, language, begin=begin)

    monkeypatch.setattr(Chunker, "chunk", chunk_or_fail)
    job = await run(parts, await create(parts.store, path))
    assert (job.state, outcomes(job)) == (JobState.SUCCEEDED, (1, 0, 3))
    letters = {letter.place: letter for letter in await letters_of(parts.store, job)}
    assert {place.rpartition(":")[2]: letter.stage for place, letter in letters.items()} == {
        "1": Stage.ENCODE,
        "3": Stage.READ,
        "4": Stage.CHUNK,
    }
    poisoned, broken, odd = (letters[f"{path}:{number}"] for number in (1, 3, 4))
    assert (poisoned.document_id, poisoned.field, poisoned.code) == ("poisoned", "text", 3)
    assert "poisoned cannot be encoded" in poisoned.reason
    assert (broken.document_id, broken.attempts) == ("", 1)
    assert odd.code == 13
    assert "incident" in odd.reason
    assert "user" not in odd.reason


async def test_a_parser_that_breaks_is_one_dead_letter(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Iterator[object]:
        raise ZeroDivisionError("what the file says")

    monkeypatch.setattr("ingest.loaders.read_csv", fail)
    write(tmp_path / "a.csv", "text\nx\n")
    write(tmp_path / "b.txt", "good")
    job = await run(parts, await create(parts.store, tmp_path))
    assert outcomes(job) == (1, 0, 1)
    (letter,) = await letters_of(parts.store, job)
    assert letter.reason.startswith(f"{tmp_path / 'a.csv'} cannot be read, for a reason that nobody foresaw (ZeroDiv")
    assert "what the file says" not in letter.reason


async def test_a_job_waits_for_what_is_away_and_counts_nothing_twice(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 30)
    parts.encoder.failures = [None, EncoderUnavailable("The encoder is away."), None, IndexUnavailable("Away, too.")]
    parts.index.failures = [IndexUnavailable("The index is away.")]
    job = await create(parts.store, tmp_path)
    states = set()
    async with running(make_runner(parts.journal.database, parts.worker)), asyncio.timeout(30):
        while not (found := await parts.store.get(job.job_id)).state.is_final:
            states.add((found.state, found.reason))
            await asyncio.sleep(0.005)
    assert found.counts.documents == 30
    assert (found.counts.failed, found.state) == (0, JobState.SUCCEEDED)
    assert {reason for state, reason in states if state is JobState.WAITING} & {
        "The encoder is away.",
        "The index is away.",
        "Away, too.",
    }


async def test_a_job_fails_when_what_it_needs_stays_away(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 1)
    parts.encoder.failures = [EncoderUnavailable("The encoder is away.")] * 99
    job = await create(parts.store, tmp_path)
    job = await run(parts, job, make_runner(parts.journal.database, parts.worker, attempts_max=3))
    assert (job.state, job.counts.documents) == (JobState.FAILED, 0)
    assert job.reason == "Given up after 3 attempts: The encoder is away."
    parts.encoder.failures = []
    assert outcomes(await run(parts, await create(parts.store, tmp_path))) == (1, 0, 0)


async def test_a_service_without_its_parts_makes_jobs_wait(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 1)
    away: list[MambaSearchError] = [EncoderUnavailable("The service is starting.")] * 13

    def worker() -> object:
        if away:
            raise away.pop()
        return parts.worker()

    job = await create(parts.store, tmp_path)
    runner = make_runner(parts.journal.database, worker, attempts_max=3)  # type: ignore[arg-type]
    job = await run(parts, job, runner)
    assert (job.state, job.reason) == (JobState.FAILED, "Given up after 3 attempts: The service is starting.")
    assert away == []


async def test_a_job_that_is_stopped_is_gone_on_with_by_another(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 150)
    encode, stuck, calls = parts.encoder.encode_passages, asyncio.Event(), 0

    async def encode_some(passages: list[str]) -> object:
        nonlocal calls
        calls += 1
        if calls > 2:
            stuck.set()
            await asyncio.Event().wait()
        return await encode(passages)

    parts.encoder.encode_passages = encode_some  # type: ignore[method-assign,assignment]
    job = await create(parts.store, tmp_path)
    first = JobStore(parts.journal.database)
    async with running(make_runner(parts.journal.database, parts.worker, store=first)):
        await stuck.wait()
        await asyncio.sleep(0.2)
    stopped = await parts.store.get(job.job_id)
    assert stopped.state is JobState.QUEUED
    assert 0 < stopped.counts.documents < 150
    parts.encoder.encode_passages = encode  # type: ignore[method-assign]
    job = await run(parts, job)
    assert (job.state, job.counts.documents, job.counts.failed) == (JobState.SUCCEEDED, 150, 0)
    names = [f"{number:03}.txt" for number in range(150)]
    assert len(await records_of(parts.index, *names)) == 150


async def test_a_job_is_cancelled_wherever_it_stands(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 3)
    queued = await create(parts.store, tmp_path)
    assert (await parts.store.cancel(queued.job_id)).state is JobState.CANCELLED
    stuck = asyncio.Event()

    async def wait(passages: list[str]) -> object:
        stuck.set()
        await asyncio.Event().wait()
        raise AssertionError

    parts.encoder.encode_passages = wait  # type: ignore[method-assign,assignment]
    job = await create(parts.store, tmp_path)
    runner = make_runner(parts.journal.database, parts.worker)
    async with running(runner):
        await stuck.wait()
        assert (await JobStore(parts.journal.database).cancel(job.job_id)).cancel_requested
        job = await ended(parts.store, job)
    assert (job.state, job.counts.documents) == (JobState.CANCELLED, 0)
    assert (await parts.store.cancel(job.job_id)).state is JobState.CANCELLED


async def test_documents_are_deleted_by_a_filter(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 25)
    await run(parts, await create(parts.store, tmp_path))
    parts.index.failures = []
    request = JobRequest(JobKind.DELETE, "default", where=IdPrefix("01"))
    job = await run(parts, await parts.store.create(uuid.uuid4().hex, request))
    assert (job.state, job.counts.deleted, job.counts.documents) == (JobState.SUCCEEDED, 10, 10)
    left, _ = await parts.index.list_records("default", "", 100)
    assert Counter(record.document_id[:2] for record in left) == {"00": 10, "02": 5}
    job = await run(parts, await parts.store.create("rest", JobRequest(JobKind.DELETE, "default")))
    assert job.counts == Counts(deleted=15, chunks=job.counts.chunks)
    assert await parts.index.list_records("default", "", 100) == ([], "")


async def test_letters_are_replayed_and_those_that_succeed_are_no_more(parts: Parts, tmp_path: Path) -> None:
    rows = [
        '{"id": "a", "text": "poison", "source": "a book"}',
        '{"id": "b", "text": "poison"}',
        '{"id": "c", "text": "c"}',
    ]
    write(tmp_path / "rows.jsonl", "\n".join(rows))
    write(tmp_path / "other.txt", "fine")
    sources = (tmp_path / "rows.jsonl", tmp_path / "other.txt", tmp_path / "folder", tmp_path / "gone.txt")
    write(tmp_path / "gone.txt", b"\0")
    job = await run(parts, await create(parts.store, *sources, metadata={"batch": "x"}))
    assert outcomes(job) == (2, 0, 4)
    first = await letters_of(parts.store, job)
    assert sorted(letter.place.removeprefix(str(tmp_path)) for letter in first) == [
        "/folder",
        "/gone.txt",
        "/rows.jsonl:1",
        "/rows.jsonl:2",
    ]
    rows[0] = rows[0].replace("poison", "cured")
    write(tmp_path / "rows.jsonl", "\n".join(rows).replace('"text": "c"', '"text": "changed"'))
    write_texts(tmp_path / "folder", 3)
    (tmp_path / "gone.txt").unlink()
    write(tmp_path / "other.txt", "changed, too")
    parts.encoder.batches.clear()
    replay = await run(parts, await replay_all(parts, job))
    read = [passage for batch in parts.encoder.batches for passage in batch]
    assert not any("changed" in passage for passage in read)
    assert (replay.state, outcomes(replay)) == (JobState.SUCCEEDED, (4, 0, 2))
    left = {letter.place.removeprefix(str(tmp_path)): letter for letter in await letters_of(parts.store, job)}
    assert sorted(left) == ["/gone.txt", "/rows.jsonl:2"]
    assert {letter.attempts for letter in left.values()} == {2}
    assert all(letter.replay_job_id == "" for letter in left.values())
    assert all(letter.last_failed_at > letter.first_failed_at for letter in left.values())
    assert (await records_of(parts.index, "a"))["a"].metadata["batch"] == "x"


async def replay_all(parts: Parts, job: Job, *letters: str) -> Job:
    request = JobRequest(
        JobKind.REPLAY,
        sources=job.request.sources,
        metadata=job.request.metadata,
        replays=job.job_id,
        letters=letters,
    )
    return await parts.store.create(uuid.uuid4().hex, request)


async def test_some_letters_are_replayed_and_the_others_stay(parts: Parts, tmp_path: Path) -> None:
    rows = ['{"id": "a", "text": "poison"}', '{"id": "b", "text": "poison"}', ""]
    path = write(tmp_path / "rows.jsonl", "\n".join(rows))
    job = await run(parts, await create(parts.store, path))
    one, other = await letters_of(parts.store, job)
    path.write_text("\n".join(rows).replace("poison", "cured"))
    replay = await replay_all(parts, job, one.letter_id)
    with pytest.raises(MambaSearchError, match="has no such dead letters"):
        await replay_all(parts, job, one.letter_id)
    assert [letter.replay_job_id for letter in await letters_of(parts.store, job)] == [replay.job_id, ""]
    assert outcomes(await run(parts, replay)) == (1, 0, 0)
    assert await letters_of(parts.store, job) == [other]
    cancelled = await replay_all(parts, job)
    await parts.store.cancel(cancelled.job_id)
    assert await letters_of(parts.store, job) == [other]


async def test_a_document_that_fails_for_a_passing_reason_is_tried_a_few_times(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 1)
    parts.index.forgetful = True
    job = await run(parts, await create(parts.store, tmp_path))
    (letter,) = await letters_of(parts.store, job)
    assert (job.state, outcomes(job)) == (JobState.SUCCEEDED, (0, 0, 1))
    assert (letter.stage, letter.attempts, letter.code) == (Stage.COMMIT, 3, 14)
    assert "chunks of it are in the index; ingest it again" in letter.reason
    parts.index.forgetful = False
    assert outcomes(await run(parts, await replay_all(parts, job))) == (1, 0, 0)
    assert await letters_of(parts.store, job) == []


async def test_a_job_of_which_nearly_all_fails_is_given_up(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.jobs.ingesting.DEAD_LETTERS_MAX", 100)
    source = write(tmp_path / "rows.jsonl", "{broken\n" * 1000)
    job = await run(parts, await create(parts.store, source))
    assert job.state is JobState.FAILED
    assert job.reason.startswith("100 documents failed, the limit of a job (the last: ")
    assert 100 <= job.counts.failed < 1000
    assert len(await letters_of(parts.store, job)) == job.counts.failed


async def test_a_worker_whose_lease_ran_out_does_not_take_its_own_job_up_again(parts: Parts, tmp_path: Path) -> None:
    """The database was away for longer than a lease: nobody has taken the job over, so it goes on as it is."""
    write_texts(tmp_path, 1)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def encode(_: object) -> None:
        under_way.set()
        await go_on.wait()

    parts.encoder.encode_passages = encode  # type: ignore[method-assign, assignment]
    store = JobStore(parts.journal.database, lease_s=-1)
    job = await create(store, tmp_path)
    runner = make_runner(parts.journal.database, parts.worker, store=store)
    async with running(runner):
        await under_way.wait()
        for _ in range(3):
            runner.look()
            await asyncio.sleep(0.05)
        assert (await store.get(job.job_id)).failed_attempts == 0


async def test_what_nobody_foresaw_while_jobs_are_looked_for_is_not_the_end_of_all(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path, 1)
    job = await create(parts.store, tmp_path)
    runner = make_runner(parts.journal.database, parts.worker)
    claim = runner.store.claim

    async def stumble(at_work: Collection[str] = ()) -> Job | None:
        monkeypatch.setattr(runner.store, "claim", claim)
        raise ZeroDivisionError

    monkeypatch.setattr(runner.store, "claim", stumble)
    async with asyncio.timeout(10):
        assert (await run(parts, job, runner)).state is JobState.SUCCEEDED


async def test_a_job_that_is_cancelled_while_it_fails_does_not_wait(parts: Parts, tmp_path: Path) -> None:
    write_texts(tmp_path, 1)
    job = await create(parts.store, tmp_path)

    async def cancel_and_fail(_: object) -> None:
        await parts.store.cancel(job.job_id)
        raise EncoderUnavailable("The encoder is away.")

    parts.encoder.encode_passages = cancel_and_fail  # type: ignore[method-assign, assignment]
    runner = make_runner(parts.journal.database, parts.worker)
    runner.rules = replace(runner.rules, first_delay_s=100.0, period_s=1.0)
    async with asyncio.timeout(10):
        assert (await run(parts, job, runner)).state is JobState.CANCELLED
