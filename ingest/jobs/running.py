"""The jobs that one process works on: claimed as there is room, ended, given back, tried again later."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from encoder.errors import MambaSearchError, Overloaded
from ingest.expected import expect
from ingest.index.interface import VectorIndex
from ingest.jobs.deleting import DeleteRun
from ingest.jobs.ingesting import IngestRun, TooManyFailures
from ingest.jobs.job_log import JobLog
from ingest.jobs.requests import JobKind
from ingest.jobs.states import Job, JobState
from ingest.jobs.store import JobStore, LeaseLost
from ingest.pipeline import Ingestor
from ingest.sources.policy import SourcePolicy

logger = logging.getLogger(__name__)

ATTEMPTS_MAX = 20
# How often jobs are looked for, and those at work renew their leases and see whether they are to end.
PERIOD_S = 1.0
# The first wait for what is away; each doubles the one before, up to the longest.
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
GIVE_BACK_S = 5.0
START_PERIODS = 10


@dataclass(frozen=True, slots=True)
class Worker:
    """What writes to the index and what reads from it. All streams and jobs share the one writer."""

    ingestor: Ingestor
    index: VectorIndex


@dataclass(frozen=True, slots=True)
class JobRules:
    """What jobs of a process may do, and how often."""

    policy: SourcePolicy
    check_tenant: Callable[[str], None]  # raises InvalidInput for a tenant that there is not
    jobs_max: int = 2
    attempts_max: int = ATTEMPTS_MAX
    first_delay_s: float = FIRST_DELAY_S
    period_s: float = PERIOD_S


class JobRunner:
    """Works on jobs, several at once. ``worker`` gives what they need, or raises why it is not there."""

    def __init__(
        self,
        store: JobStore,
        worker: Callable[[], Worker],
        rules: JobRules,
        unexpected: Callable[[Exception, str], MambaSearchError],
    ) -> None:
        """``unexpected`` logs an exception that nobody foresaw, and makes what others may see of it."""
        self.store = store
        self._worker = worker
        self.rules = rules
        self._unexpected = unexpected
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    def look(self) -> None:
        """Look for jobs, and at those at work, now."""
        self._news.set()

    async def run(self) -> None:
        """Work until cancelled; then give back what is under way, so that another start goes on with it."""
        try:
            await self._wait_for_parts()
            while True:
                self._news.clear()
                try:
                    while len(self._tasks) < self.rules.jobs_max:
                        job = await self.store.claim([task.get_name() for task in self._tasks])
                        if job is None:
                            break
                        self._start(job)
                except MambaSearchError as error:
                    logger.warning("no job is taken up for now: %s", error)
                except Exception as error:  # noqa: BLE001 - jobs are looked for again all the same
                    self._unexpected(error, "the search for jobs")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.rules.period_s):
                        await self._news.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2 * GIVE_BACK_S)

    async def _wait_for_parts(self) -> None:
        """Give encoder and index a moment at the start: a job that is taken up without them waits for longer."""
        for _ in range(START_PERIODS):
            try:
                self._worker()
            except MambaSearchError:
                await asyncio.sleep(self.rules.period_s)
            else:
                return

    def _start(self, job: Job) -> None:
        task = asyncio.create_task(self._attempt(job), name=job.job_id)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.look()
        if not task.cancelled() and (error := task.exception()):
            # Its lease runs out, and the job is claimed again.
            logger.warning("a job is left as it is: %s", error)

    async def _attempt(self, job: Job) -> None:
        log = JobLog(self.store, job)
        try:
            await self._work(log)
        except LeaseLost:
            logger.warning("job %s is another worker's by now", job.job_id)
        except asyncio.CancelledError:
            async with asyncio.timeout(GIVE_BACK_S):
                await log.flush()
                await self.store.release(log.job)
            raise
        except TooManyFailures as error:
            await log.flush()
            await self.store.finish(log.job, JobState.FAILED, str(error))
        except MambaSearchError as error:
            await self._try_later(log, error)
        except Exception as error:  # noqa: BLE001 - a job's end is told, whatever it is
            await self._try_later(log, self._unexpected(error, f"job {job.job_id}"))

    async def _work(self, log: JobLog) -> None:
        job, rules = log.job, self.rules
        if job.cancel_requested:
            await self.store.finish(job, JobState.CANCELLED)
            return
        if job.failed_attempts >= rules.attempts_max:
            reason = f"{job.failed_attempts} workers ended while they worked on it, the limit; their logs say why."
            await self.store.finish(job, JobState.FAILED, reason)
            return
        worker = self._worker()
        run: IngestRun | DeleteRun
        if job.request.kind is JobKind.DELETE:
            run = DeleteRun(log, worker.ingestor, worker.index)
        else:
            run = IngestRun(log, self.store, worker.ingestor, rules.policy, rules.check_tenant, self._unexpected)
        if await self._run_watched(run, log):
            not_found = run.not_found if isinstance(run, IngestRun) else None
            await self.store.finish(log.job, JobState.SUCCEEDED, not_found=not_found)
        else:
            await log.flush()
            await self.store.finish(log.job, JobState.CANCELLED)

    async def _run_watched(self, run: IngestRun | DeleteRun, log: JobLog) -> bool:
        """Run to the end; False where the job was cancelled on the way. Keeps the lease, and tells how far it is."""
        work = asyncio.create_task(run.run())
        measuring = asyncio.create_task(self._measure(log.job))
        try:
            while True:
                done, _ = await asyncio.wait({work}, timeout=self.rules.period_s)
                if done:
                    work.result()
                    return True
                try:
                    await log.flush()
                except MambaSearchError as error:  # the lease holds for a while
                    logger.warning("job %s cannot be written down for now: %s", log.job.job_id, error)
                if log.job.cancel_requested:
                    return False
        finally:
            work.cancel()
            measuring.cancel()
            await asyncio.gather(work, measuring, return_exceptions=True)

    async def _measure(self, job: Job) -> None:
        """Add up the sources of a job, where it has not been done."""
        if job.request.kind is not JobKind.INGEST or job.bytes_total is not None:
            return
        found = await asyncio.to_thread(expect, job.request.sources, self.rules.policy)
        if found.text_bytes is not None:
            await self.store.note_size(job, found.text_bytes)

    async def _try_later(self, log: JobLog, error: MambaSearchError) -> None:
        """Let a job wait for what it lacks, longer each time, and a little by chance, so that not all come at once."""
        with suppress(MambaSearchError):
            await log.flush()  # what is done is done
        if log.job.cancel_requested:
            await self.store.finish(log.job, JobState.CANCELLED)
            return
        attempts = log.job.failed_attempts + 1
        if attempts >= self.rules.attempts_max:
            await self.store.finish(log.job, JobState.FAILED, f"Given up after {attempts} attempts: {error}")
            return
        delay_s = min(self.rules.first_delay_s * 2 ** (attempts - 1), LONGEST_DELAY_S) * random.uniform(0.5, 1.0)  # noqa: S311
        if isinstance(error, Overloaded):
            delay_s = max(delay_s, error.retry_after_s)
        logger.info("job %s waits for %.1f s: %s", log.job.job_id, delay_s, error)
        await self.store.wait(log.job, str(error), delay_s)


@asynccontextmanager
async def at_work(runner: JobRunner, stop: asyncio.Event) -> AsyncIterator[asyncio.Event]:
    """Have a runner work until ``stop``; the event that it gives is set when all jobs have been given back."""
    given_back = asyncio.Event()

    async def work() -> None:
        running = asyncio.create_task(runner.run())
        try:
            await stop.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            given_back.set()

    task = asyncio.create_task(work())
    try:
        yield given_back
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
