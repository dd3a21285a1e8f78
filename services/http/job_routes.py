"""Jobs of ingestion and their dead letters. They are the ingestion worker's, which is asked with the caller's key."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from mambasearch.v1 import jobs_pb2

from services.http.calling import Parts
from services.http.job_events import job_events
from services.http.messages import to_json, to_message
from services.http.models.jobs_pb2_json import (
    CreateIngestJobRequest,
    Job,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    ListJobsRequest,
    ListJobsResponse,
    ReplayDeadLettersRequest,
)


def job_routes(parts: Parts, responses: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Make the routes; ``responses`` describes what they answer where they fail."""
    router = APIRouter(tags=["jobs"], responses=responses)

    @router.get("/v1/jobs", response_model=ListJobsResponse)
    async def list_jobs(asked: Annotated[ListJobsRequest, Query()], request: Request) -> JSONResponse:
        """List jobs, the newest first."""
        message = to_message(asked, jobs_pb2.ListJobsRequest())
        return JSONResponse(to_json(await parts.ask_worker(request, "ListJobs", message)))

    @router.post("/v1/jobs", response_model=Job, status_code=201)
    async def create_job(body: CreateIngestJobRequest, request: Request) -> JSONResponse:
        """Have the worker ingest sources. The same request_id again makes no second job."""
        message = to_message(body, jobs_pb2.CreateIngestJobRequest())
        job = to_json(await parts.ask_worker(request, "CreateIngestJob", message))
        return JSONResponse(job, 201)

    @router.get("/v1/jobs/{job_id}", response_model=Job)
    async def get_job(job_id: str, request: Request) -> JSONResponse:
        """Show a job."""
        message = jobs_pb2.GetJobRequest(job_id=job_id)
        return JSONResponse(to_json(await parts.ask_worker(request, "GetJob", message)))

    @router.post("/v1/jobs/{job_id}/cancel", response_model=Job)
    async def cancel_job(job_id: str, request: Request) -> JSONResponse:
        """End a job. What was ingested by then stays."""
        message = jobs_pb2.CancelJobRequest(job_id=job_id)
        return JSONResponse(to_json(await parts.ask_worker(request, "CancelJob", message)))

    @router.post("/v1/jobs/{job_id}/replay", response_model=Job, status_code=201)
    async def replay_dead_letters(job_id: str, body: ReplayDeadLettersRequest, request: Request) -> JSONResponse:
        """Have what a job could not ingest read again, as a new job."""
        message = to_message(body, jobs_pb2.ReplayDeadLettersRequest(job_id=job_id))
        job = to_json(await parts.ask_worker(request, "ReplayDeadLetters", message))
        return JSONResponse(job, 201)

    @router.get("/v1/dead-letters", response_model=ListDeadLettersResponse)
    async def list_dead_letters(asked: Annotated[ListDeadLettersRequest, Query()], request: Request) -> JSONResponse:
        """List what jobs could not ingest, the oldest first."""
        message = to_message(asked, jobs_pb2.ListDeadLettersRequest())
        return JSONResponse(to_json(await parts.ask_worker(request, "ListDeadLetters", message)))

    @router.get(
        "/v1/jobs/{job_id}/events",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Events: job, end, error."}},
    )
    async def watch_job(job_id: str, request: Request) -> StreamingResponse:
        """Follow a job by server-sent events: `job` (a job) on each change, `end` after the last one.

        `error` (code and message) where it cannot be followed. EventSource sends no keys: read the answer of fetch.
        """
        # Who may not see it, or asks for none that is, is told so as by any other method.
        await parts.ask_worker(request, "GetJob", jobs_pb2.GetJobRequest(job_id=job_id))
        events = job_events(parts.watch_job(request, job_id), parts.stopping)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    return router
