"""What one attempt at a job has done, on its way into the database: a few documents at a time, each once."""

from __future__ import annotations

import asyncio
import time

from ingest.jobs.states import Job, Settled
from ingest.jobs.store import JobStore

AT_ONCE = 64


class JobLog:
    """Holds what is settled until it is written. ``job`` is the job as it was at the last write."""

    def __init__(self, store: JobStore, job: Job) -> None:
        self._store = store
        self._waiting: list[Settled] = []
        self._writing = asyncio.Lock()
        self._written_at = time.monotonic()
        self.job = job

    async def add(self, settled: Settled) -> None:
        """Note a document; raises what :meth:`flush` raises."""
        self._waiting.append(settled)
        if len(self._waiting) >= AT_ONCE:
            await self.flush()

    async def flush(self) -> None:
        """Write what is noted and renew the lease; raises what :meth:`ingest.jobs.store.JobStore.record` raises."""
        async with self._writing:
            batch, now = list(self._waiting), time.monotonic()
            self.job = await self._store.record(self.job, batch, now - self._written_at)
            self._written_at = now
            del self._waiting[: len(batch)]
