"""Jobs for tests: a runner that may read everything, waits for little, and what becomes of its jobs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from encoder.errors import InvalidInput
from ingest.database import Database
from ingest.jobs.dead_letters import DeadLetter, list_letters
from ingest.jobs.requests import JobKind, JobRequest
from ingest.jobs.running import JobRules, JobRunner, Worker, at_work
from ingest.jobs.states import Job
from ingest.jobs.store import JobStore
from ingest.sources.policy import EVERYTHING, SourcePolicy
from services.status import unexpected


def refuse_strangers(tenant: str) -> None:
    if tenant == "stranger":
        raise InvalidInput("tenant", "tenant 'stranger' does not exist.")


def make_runner(
    database: Database,
    worker: Callable[[], Worker],
    *,
    policy: SourcePolicy = EVERYTHING,
    attempts_max: int = 20,
    store: JobStore | None = None,
) -> JobRunner:
    rules = JobRules(policy, refuse_strangers, attempts_max=attempts_max, first_delay_s=0.01, period_s=0.05)
    return JobRunner(store or JobStore(database), worker, rules, unexpected)


@asynccontextmanager
async def running(runner: JobRunner) -> AsyncIterator[None]:
    """Work on jobs within the block; at its end they are given back."""
    stop = asyncio.Event()
    async with at_work(runner, stop) as given_back:
        yield
        stop.set()
        await given_back.wait()


async def create(store: JobStore, *sources: Path | str, **values: object) -> Job:
    request = JobRequest(JobKind.INGEST, sources=tuple(map(str, sources)), **values)  # type: ignore[arg-type]
    return await store.create(uuid.uuid4().hex, request)


async def ended(store: JobStore, job: Job) -> Job:
    """Wait until a job has ended."""
    async with asyncio.timeout(60):
        while not (found := await store.get(job.job_id)).state.is_final:  # noqa: ASYNC110 - in any process
            await asyncio.sleep(0.02)
    return found


async def letters_of(store: JobStore, job: Job) -> Sequence[DeadLetter]:
    return await list_letters(store.database, job_id=job.job_id, tenant="", after=None, limit=1000)
