"""``mamba-search dead-letters``: what jobs could not ingest, and another try at it."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from services.cli.jobs import JobId, Json, Target, describe


def list_letters(
    job: Annotated[str, typer.Option(help="Only this job's.")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    limit: Annotated[int, typer.Option(help="How many to show.", min=1)] = 50,
    json_output: Json = False,
    target: Target = None,
) -> None:
    """Show dead letters, the oldest first: where it was read, the stage, why, and how often it was tried."""
    from mambasearch.v1 import jobs_pb2

    from services.cli.worker_calls import pages, to_json, worker_settings

    settings = worker_settings(target)
    request = jobs_pb2.ListDeadLettersRequest(job_id=job, tenant=tenant)

    async def show_all() -> None:
        async for letter in pages(settings, "ListDeadLetters", request, "dead_letters", limit):
            line = to_json(letter) if json_output else _describe(letter)
            sys.stdout.write(line + "\n")

    asyncio.run(show_all())


def replay(
    job: JobId,
    letters: Annotated[list[str] | None, typer.Argument(help="Which of its letters. Default: all.")] = None,
    request_id: Annotated[str, typer.Option(help="A name for this request: given again, it makes no second job.")] = "",
    json_output: Json = False,
    target: Target = None,
) -> None:
    """Have the worker read again what became dead letters of a job, as a new job."""
    from mambasearch.v1 import jobs_pb2

    from services.cli.worker_calls import ask, to_json, worker_settings

    request = jobs_pb2.ReplayDeadLettersRequest(request_id=request_id, job_id=job, dead_letter_ids=letters or [])
    call = ask(worker_settings(target), lambda stub, time_s: stub.ReplayDeadLetters(request, timeout=time_s))
    made = asyncio.run(call)
    sys.stdout.write((to_json(made) if json_output else describe(made)) + "\n")


def _describe(letter: object) -> str:
    from mambasearch.v1 import jobs_pb2

    assert isinstance(letter, jobs_pb2.DeadLetter)
    stage = jobs_pb2.IngestStage.Name(letter.stage).removeprefix("INGEST_STAGE_").lower()
    times = "once" if letter.attempts == 1 else f"{letter.attempts} times"
    return f"{letter.dead_letter_id} {letter.source} ({stage}, tried {times}): {letter.reason}"
