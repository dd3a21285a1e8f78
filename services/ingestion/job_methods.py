"""The methods of IngestService that are about jobs and dead letters."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import Message
from mambasearch.v1 import ingest_pb2_grpc, jobs_pb2

from encoder.errors import InvalidInput
from ingest.documents import check_tenant, named_tenant
from ingest.index.filter_messages import filter_from_message
from ingest.index.metadata_messages import metadata_from_messages
from ingest.jobs.dead_letters import list_letters
from ingest.jobs.requests import JobKind, JobRequest, check_request
from ingest.jobs.running import JobRunner
from ingest.jobs.states import Job, JobState
from ingest.jobs.store import no_such_job
from services.door.principal import caller
from services.ingestion.job_messages import STATES, job_message, letter_message
from services.paging import make_token, page_size_of, read_token

WATCH_PERIOD_S = 0.5
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_STATES: dict[int, JobState] = {number: state for state, number in STATES.items()}

_Context = grpc.aio.ServicerContext[Any, Any]


class JobMethods(ingest_pb2_grpc.IngestServiceServicer):
    """Creates, shows and ends jobs; ``runner`` works on them."""

    def __init__(self, runner: JobRunner) -> None:
        self._runner = runner
        self._store = runner.store

    async def CreateIngestJob(  # noqa: N802 - the proto's name
        self, request: jobs_pb2.CreateIngestJobRequest, context: _Context
    ) -> jobs_pb2.Job:
        """Have sources ingested."""
        del context
        if not self._runner.rules.policy.schemes:
            message = (
                "sources cannot be read: this worker reads nothing for others unless it is told what (its settings "
                "ingest_folders, ingest_schemes and ingest_hosts); have them set, or send a stream of documents."
            )
            raise InvalidInput("sources", message)
        return await self._create(
            request.request_id,
            JobRequest(
                JobKind.INGEST,
                request.tenant,
                tuple(request.sources),
                metadata_from_messages(request.metadata),
            ),
        )

    async def DeleteByFilter(  # noqa: N802 - the proto's name
        self, request: jobs_pb2.DeleteByFilterRequest, context: _Context
    ) -> jobs_pb2.Job:
        """Have documents deleted."""
        del context
        if request.HasField("filter") == request.all_documents:
            raise InvalidInput("filter", "filter or all_documents must be given, and not both.")
        where = filter_from_message(request.filter) if request.HasField("filter") else None
        asked = JobRequest(JobKind.DELETE, named_tenant(request.tenant), where=where)
        return await self._create(request.request_id, asked)

    async def ReplayDeadLetters(  # noqa: N802 - the proto's name
        self, request: jobs_pb2.ReplayDeadLettersRequest, context: _Context
    ) -> jobs_pb2.Job:
        """Have dead letters read again, under the conditions of their job."""
        del context
        before = (await self._visible(request.job_id)).request
        letters = tuple(dict.fromkeys(request.dead_letter_ids))
        asked = JobRequest(
            JobKind.REPLAY, before.tenant, before.sources, before.metadata, replays=request.job_id, letters=letters
        )
        return await self._create(request.request_id, asked)

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: _Context) -> jobs_pb2.Job:  # noqa: N802
        """Show a job."""
        del context
        return job_message(await self._visible(request.job_id))

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: _Context) -> jobs_pb2.Job:  # noqa: N802
        """End a job."""
        del context
        await self._visible(request.job_id)
        job = await self._store.cancel(request.job_id)
        self._runner.look()
        return job_message(job)

    async def WatchJob(  # noqa: N802 - the proto's name
        self, request: jobs_pb2.WatchJobRequest, context: _Context
    ) -> AsyncIterator[jobs_pb2.Job]:
        """Show a job on each change, until it has ended."""
        del context
        told: jobs_pb2.Job | None = None
        while True:
            job = await self._visible(request.job_id)
            message = job_message(job)
            if message != told:
                told = message
                yield message
            if job.state.is_final:
                return
            await asyncio.sleep(WATCH_PERIOD_S)

    async def ListJobs(  # noqa: N802 - the proto's name
        self, request: jobs_pb2.ListJobsRequest, context: _Context
    ) -> jobs_pb2.ListJobsResponse:
        """Show a page of jobs."""
        del context
        size, asked = page_size_of(request.page_size), _asked(request)
        state = _STATES.get(request.state)
        if request.state and not state:
            raise InvalidInput("state", f"state is {request.state}, which is none of a job.")
        after = _moment(read_token(asked, request.page_token, 2))
        found = await self._store.list_jobs(tenant=_tenant(request.tenant), state=state, after=after, limit=size + 1)
        page = found[:size]
        token = make_token(asked, (page[-1].created_at, page[-1].job_id)) if len(found) > size else ""
        # Jobs whose documents name their tenants stand under the default one, and are of who sees all.
        shown = [job_message(job) for job in page if caller().sees(job.request.tenant)]
        return jobs_pb2.ListJobsResponse(jobs=shown, next_page_token=token)

    async def ListDeadLetters(  # noqa: N802 - the proto's name
        self, request: jobs_pb2.ListDeadLettersRequest, context: _Context
    ) -> jobs_pb2.ListDeadLettersResponse:
        """Show a page of dead letters."""
        del context
        size, asked = page_size_of(request.page_size), _asked(request)
        after = _moment(read_token(asked, request.page_token, 2))
        found = await list_letters(
            self._store.database, job_id=request.job_id, tenant=_tenant(request.tenant), after=after, limit=size + 1
        )
        page = found[:size]
        token = make_token(asked, (page[-1].first_failed_at, page[-1].letter_id)) if len(found) > size else ""
        return jobs_pb2.ListDeadLettersResponse(dead_letters=map(letter_message, page), next_page_token=token)

    async def _visible(self, job_id: str) -> Job:
        """Read a job; :class:`NotFound` where there is none, and in the same words where it is another tenant's."""
        job = await self._store.get(job_id)
        if not caller().sees(job.request.tenant):
            raise no_such_job(job_id)
        return job

    async def _create(self, request_id: str, asked: JobRequest) -> jobs_pb2.Job:
        if request_id and not _REQUEST_ID.fullmatch(request_id):
            message = f"request_id {request_id[:140]!r} is not 1 to 128 letters (A to Z), digits, - and _."
            raise InvalidInput("request_id", message)
        check_request(asked)
        if asked.tenant:
            self._runner.rules.check_tenant(asked.tenant)
        job: Job = await self._store.create(request_id or uuid.uuid4().hex, asked)
        self._runner.look()
        return job_message(job)


def _tenant(name: str) -> str:
    """Give the tenant of whom a list is, empty for all; :class:`InvalidInput` for a name that none can have."""
    if name:
        check_tenant(name)
    return name


def _asked(request: jobs_pb2.ListJobsRequest | jobs_pb2.ListDeadLettersRequest) -> bytes:
    """Give what a request asks, without the page."""
    plain: Message = type(request)()
    plain.CopyFrom(request)
    for field in ("page_size", "page_token"):
        plain.ClearField(field)
    return plain.SerializeToString(deterministic=True)


def _moment(after: list[str | float] | None) -> tuple[float, str] | None:
    if after is None:
        return None
    at, name = after
    if not isinstance(at, int | float):
        raise InvalidInput("page_token", "page_token is not one that this list gave; begin with the first page.")
    return float(at), str(name)
