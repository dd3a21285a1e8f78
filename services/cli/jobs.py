"""``mamba-search jobs``: ingestion that the worker does by itself, and how far it is."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mambasearch.v1 import jobs_pb2

    from services.settings import CommandSettings

EXIT_FAILED = 1

Target = Annotated[str | None, typer.Option(help="Ask the ingestion worker at HOST:PORT. Default: 127.0.0.1:50052.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
Tenant = Annotated[str, typer.Option(help="Whose documents. Default: as each says, else of the tenant default.")]


def create(
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders, patterns, git repositories (on the worker's machine) and URLs."),
    ],
    tenant: Tenant = "",
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", help="NAME=VALUE, added to each document; may be repeated.")
    ] = None,
    request_id: Annotated[str, typer.Option(help="A name for this request: given again, it makes no second job.")] = "",
    watch_it: Annotated[bool, typer.Option("--watch", help="Show how far it is, until it has ended.")] = False,
    json_output: Json = False,
    target: Target = None,
) -> None:
    """Have the worker ingest sources, which it reads itself; its settings say what it may read."""
    from mambasearch.v1 import jobs_pb2

    from ingest.index.metadata_messages import metadata_to_messages
    from services.cli.worker_calls import ask, worker_settings

    settings = worker_settings(target)
    request = jobs_pb2.CreateIngestJobRequest(
        request_id=request_id,
        sources=[_absolute(source) for source in sources],
        tenant=tenant,
        metadata=metadata_to_messages(_read_metadata(metadata or [])),
    )
    job = asyncio.run(ask(settings, lambda stub, time_s: stub.CreateIngestJob(request, timeout=time_s)))
    if watch_it:
        _end(asyncio.run(_watch(settings, job.job_id, json_output)))
    else:
        _print(job, json_output)


def list_jobs(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    state: Annotated[
        str, typer.Option(help="Only in this state: queued, running, waiting, succeeded, failed, cancelled.")
    ] = "",
    limit: Annotated[int, typer.Option(help="How many to show.", min=1)] = 50,
    json_output: Json = False,
    target: Target = None,
) -> None:
    """Show jobs, the newest first."""
    from mambasearch.v1 import jobs_pb2

    from encoder.errors import InvalidInput
    from services.cli.worker_calls import pages, worker_settings

    name = f"JOB_STATE_{state.upper()}" if state else None
    if name and name not in jobs_pb2.JobState.keys():  # noqa: SIM118 - no mapping
        raise InvalidInput("state", f"state is {state!r}; give queued, running, waiting, or how it ended.")
    settings = worker_settings(target)
    request = jobs_pb2.ListJobsRequest(tenant=tenant, state=name)

    async def show_all() -> None:
        async for job in pages(settings, "ListJobs", request, "jobs", limit):
            _print(job, json_output)

    asyncio.run(show_all())


def show(job_id: JobId, json_output: Json = False, target: Target = None) -> None:
    """Show a job as it stands."""
    from mambasearch.v1 import jobs_pb2

    from services.cli.worker_calls import ask, worker_settings

    request = jobs_pb2.GetJobRequest(job_id=job_id)
    call = ask(worker_settings(target), lambda stub, time_s: stub.GetJob(request, timeout=time_s))
    _print(asyncio.run(call), json_output)


def watch(job_id: JobId, json_output: Json = False, target: Target = None) -> None:
    """Show how far a job is, until it has ended; exit code 1 where documents or the job failed."""
    from services.cli.worker_calls import worker_settings

    _end(asyncio.run(_watch(worker_settings(target), job_id, json_output)))


def cancel(job_id: JobId, json_output: Json = False, target: Target = None) -> None:
    """End a job. What is ingested by then stays."""
    from mambasearch.v1 import jobs_pb2

    from services.cli.worker_calls import ask, worker_settings

    request = jobs_pb2.CancelJobRequest(job_id=job_id)
    call = ask(worker_settings(target), lambda stub, time_s: stub.CancelJob(request, timeout=time_s))
    _print(asyncio.run(call), json_output)


def describe(job: jobs_pb2.Job) -> str:
    """Say in one line what a job is and how far."""
    from mambasearch.v1 import jobs_pb2

    state = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
    kind = jobs_pb2.JobKind.Name(job.kind).removeprefix("JOB_KIND_").lower()
    progress = job.progress
    parts = [f"{progress.documents:,} documents"]
    outcomes = ("ingested", "updated", "unchanged", "superseded", "deleted", "failed")
    parts += [f"{count:,} {name}" for name in outcomes if (count := getattr(progress, name))]
    if progress.tokens:
        parts.append(f"{progress.tokens_per_s:,.0f} tokens/s")
    if progress.HasField("time_left"):
        parts.append(f"{progress.time_left.ToSeconds()} s left")
    reason = f": {job.reason}" if job.reason else ""
    return f"{job.job_id} {kind} {state} ({', '.join(parts)}){reason}"


async def _watch(settings: CommandSettings, job_id: str, json_output: bool) -> jobs_pb2.Job:
    """Print each state of a job; on a terminal, in one line."""
    import grpc
    from mambasearch.v1 import ingest_pb2_grpc, jobs_pb2
    from rich.console import Console

    from services.cli.calling import call_error, open_channel

    console = Console(stderr=True, highlight=False)
    job = jobs_pb2.Job()
    async with open_channel(settings.ingest_target, settings) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        with console.status("waiting") as line:
            try:
                async for job in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id)):
                    if json_output:
                        _print(job, json_output)
                    else:
                        line.update(describe(job))
            except grpc.aio.AioRpcError as error:
                raise call_error(error, "ingestion worker", settings.ingest_target, works_alone=False) from None
    if not json_output:
        _print(job, json_output)
    return job


def _print(job: jobs_pb2.Job, json_output: bool) -> None:
    from services.cli.worker_calls import to_json

    sys.stdout.write((to_json(job) if json_output else describe(job)) + "\n")
    sys.stdout.flush()


def _end(job: jobs_pb2.Job) -> None:
    from mambasearch.v1 import jobs_pb2

    if job.state != jobs_pb2.JOB_STATE_SUCCEEDED or job.progress.failed:
        raise typer.Exit(EXIT_FAILED)


def _absolute(source: str) -> str:
    """Name a path of this machine as the worker, which may run elsewhere, will find it."""
    return source if "://" in source or source == "-" else str(Path(source).absolute())


def _read_metadata(given: list[str]) -> dict[str, str | int | float | bool]:
    """Read ``NAME=VALUE``; a value that is a number, or true or false, is one."""
    import json

    from encoder.errors import InvalidInput

    found: dict[str, str | int | float | bool] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput("metadata", f"metadata is {text[:80]!r}; write NAME=VALUE.")
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        found[name] = read if isinstance(read, str | int | float | bool) else value
    return found
