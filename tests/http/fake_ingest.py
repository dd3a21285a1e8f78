"""An ingestion worker that ingests nothing: jobs in a list, which come on while they are watched."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

from mambasearch.v1 import ingest_pb2_grpc, jobs_pb2

from encoder.errors import NotFound


class FakeIngest(ingest_pb2_grpc.IngestServiceServicer):
    """``steps`` of ``step_s`` each make a job; ``metadata`` is what each call came with."""

    def __init__(self) -> None:
        self.jobs: dict[str, jobs_pb2.Job] = {}
        self.metadata: list[dict[str, Any]] = []
        self.watched = 0
        self.step_s = 0.02
        self.steps = 3
        self.error: Exception | None = None

    async def CreateIngestJob(self, request: jobs_pb2.CreateIngestJobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        self._note(context)
        job = jobs_pb2.Job(
            job_id=f"job-{len(self.jobs)}",
            kind=jobs_pb2.JOB_KIND_INGEST,
            tenant=request.tenant,
            sources=request.sources,
            metadata=request.metadata,
            state=jobs_pb2.JOB_STATE_RUNNING,
        )
        job.created_at.FromSeconds(1_790_000_000)
        job.progress.bytes_total = 1000
        self.jobs[job.job_id] = job
        return job

    async def until_watched(self) -> None:
        while not self.watched:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        self._note(context)
        if request.job_id not in self.jobs:
            raise NotFound(f"There is no job {request.job_id}.")
        return self.jobs[request.job_id]

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        self._note(context)
        self.jobs[request.job_id].state = jobs_pb2.JOB_STATE_CANCELLED
        return self.jobs[request.job_id]

    async def ReplayDeadLetters(  # noqa: N802
        self, request: jobs_pb2.ReplayDeadLettersRequest, context: Any
    ) -> jobs_pb2.Job:
        self._note(context)
        return jobs_pb2.Job(job_id="again", kind=jobs_pb2.JOB_KIND_REPLAY, sources=[request.job_id])

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Any) -> jobs_pb2.ListJobsResponse:  # noqa: N802
        self._note(context)
        jobs = list(reversed(self.jobs.values()))
        return jobs_pb2.ListJobsResponse(jobs=jobs[: request.page_size or 50])

    async def ListDeadLetters(  # noqa: N802
        self, request: jobs_pb2.ListDeadLettersRequest, context: Any
    ) -> jobs_pb2.ListDeadLettersResponse:
        self._note(context)
        letter = jobs_pb2.DeadLetter(
            dead_letter_id="x", source="a.pdf", reason="a.pdf is broken.", stage=jobs_pb2.INGEST_STAGE_READ
        )
        return jobs_pb2.ListDeadLettersResponse(dead_letters=[letter])

    async def WatchJob(self, request: jobs_pb2.WatchJobRequest, context: Any) -> AsyncIterator[jobs_pb2.Job]:  # noqa: N802
        self._note(context)
        self.watched += 1
        job = self.jobs[request.job_id]
        try:
            for step in itertools.count(1):
                job.progress.documents = job.progress.ingested = step
                job.progress.bytes_done = min(1000 * step // self.steps, 1000)
                if step >= self.steps and job.state == jobs_pb2.JOB_STATE_RUNNING:
                    job.state = jobs_pb2.JOB_STATE_SUCCEEDED
                yield job
                if job.state != jobs_pb2.JOB_STATE_RUNNING:
                    return
                await asyncio.sleep(self.step_s)
                if self.error:
                    raise self.error
        finally:
            self.watched -= 1

    def _note(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
