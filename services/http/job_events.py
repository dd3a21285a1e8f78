"""A job's progress as server-sent events: one for each change, and one when it has ended or cannot be followed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from mambasearch.v1 import jobs_pb2

from encoder.errors import MambaSearchError
from services.http.messages import to_json
from services.http.problems import problem_of

# Something is said so often, so that both ends, and what lies between them, see that the other is there.
PING_PERIOD_S = 15.0
# A reader comes again after so long; it is not told more than this at once.
RETRY_MS = 2000
STREAM_MAX_S = 3600.0


async def job_events(jobs: AsyncGenerator[jobs_pb2.Job, None], stopping: asyncio.Event) -> AsyncIterator[str]:
    """Write events: ``job`` (the job as JSON), ``end`` after the last, ``error`` where it cannot be followed."""
    yield f"retry: {RETRY_MS}\n\n"
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stopping.wait())
    deadline = asyncio.get_running_loop().time() + STREAM_MAX_S
    async with aclosing(_with_pings(jobs, stopped, deadline)) as said:
        try:
            async for job in said:
                yield ": still there\n\n" if job is None else _event("job", to_json(job))
            if not stopped.done() and asyncio.get_running_loop().time() < deadline:
                yield _event("end", {})
        except MambaSearchError as error:
            problem = problem_of(error)
            yield _event("error", {"code": problem.code, "message": problem.message})
        finally:
            stopped.cancel()


async def _with_pings(
    jobs: AsyncGenerator[jobs_pb2.Job, None], stopped: asyncio.Future[Any], deadline: float
) -> AsyncGenerator[jobs_pb2.Job | None, None]:
    """Give jobs as they come, and None where none has come for a while; ends with them, or when told to."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Queue[jobs_pb2.Job | Exception | None] = asyncio.Queue(1)

    async def read() -> None:
        try:
            async with aclosing(jobs):
                async for job in jobs:
                    await coming.put(job)
            await coming.put(None)
        except Exception as error:  # noqa: BLE001 - raised again by who reads
            await coming.put(error)

    reading = asyncio.ensure_future(read())
    taking: asyncio.Future[Any] | None = None
    try:
        while loop.time() < deadline:
            taking = taking or asyncio.ensure_future(coming.get())
            await asyncio.wait({taking, stopped}, timeout=PING_PERIOD_S, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                return
            if not taking.done():
                yield None
                continue
            job, taking = taking.result(), None
            if isinstance(job, Exception):
                raise job
            if job is None:
                return
            yield job
    finally:
        tasks = [task for task in (reading, taking) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
