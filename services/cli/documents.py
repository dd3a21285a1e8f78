"""``mamba-search documents``: what is in the index, and how to take it out."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.jobs import Json, Target, describe

if TYPE_CHECKING:
    from mambasearch.v1 import ingest_pb2, jobs_pb2

Tenant = Annotated[str, typer.Option(help="Whose documents.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help="FIELD=VALUE, !=, <, <=, > or >= on metadata, title, source, ingested_at; document_id^=PREFIX; FIELD "
        "alone where it must exist. May be repeated: all must hold.",
    ),
]


def list_documents(
    where: Where = None,
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option(help="How many to show.", min=1)] = 50,
    json_output: Json = False,
    target: Target = None,
) -> None:
    """Show documents of the index."""
    from mambasearch.v1 import ingest_pb2

    from ingest.index.filter_messages import filter_to_message
    from services.cli.where import filter_of
    from services.cli.worker_calls import pages, worker_settings

    settings, found = worker_settings(target), filter_of(where or [])
    request = ingest_pb2.ListDocumentsRequest(tenant=tenant, filter=None if found is None else filter_to_message(found))

    async def show_all() -> None:
        async for document in pages(settings, "ListDocuments", request, "documents", limit):
            _print(document, json_output)

    asyncio.run(show_all())


def show(
    document_id: Annotated[str, typer.Argument(help="The document's id.")],
    tenant: Tenant = "default",
    json_output: Json = False,
    target: Target = None,
) -> None:
    """Show what the index knows of a document."""
    from mambasearch.v1 import ingest_pb2

    from services.cli.worker_calls import ask, worker_settings

    request = ingest_pb2.GetDocumentRequest(document_id=document_id, tenant=tenant)
    call = ask(worker_settings(target), lambda stub, time_s: stub.GetDocument(request, timeout=time_s))
    _print(asyncio.run(call), json_output)


def delete(
    document_ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents.")] = None,
    where: Where = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the tenant's documents.")] = False,
    tenant: Tenant = "default",
    json_output: Json = False,
    target: Target = None,
) -> None:
    """Take documents out of the index: those named at once, those of conditions (or all) as a job."""
    from encoder.errors import InvalidInput
    from services.cli.worker_calls import to_json

    if sum(map(bool, (document_ids, where, everything))) != 1:
        raise InvalidInput("document_ids", "give ids of documents, or --where, or --all, and only one of them.")
    if document_ids:
        asyncio.run(_delete_each(document_ids, tenant, target))
        return
    job = asyncio.run(_delete_by_job(where or [], tenant, target))
    sys.stdout.write((to_json(job) if json_output else describe(job)) + "\n")


async def _delete_each(document_ids: list[str], tenant: str, target: str | None) -> None:
    from mambasearch.v1 import ingest_pb2

    from services.cli.worker_calls import ask, worker_settings

    settings = worker_settings(target)

    async def delete_one(document_id: str) -> None:
        request = ingest_pb2.DeleteDocumentRequest(document_id=document_id, tenant=tenant)
        answer = await ask(settings, lambda stub, time_s: stub.DeleteDocument(request, timeout=time_s))
        sys.stdout.write(f"{document_id}: deleted, {answer.chunk_count} chunks\n")

    for document_id in document_ids:
        await delete_one(document_id)


async def _delete_by_job(where: list[str], tenant: str, target: str | None) -> jobs_pb2.Job:
    from mambasearch.v1 import jobs_pb2

    from ingest.index.filter_messages import filter_to_message
    from services.cli.where import filter_of
    from services.cli.worker_calls import ask, worker_settings

    found = filter_of(where)
    request = jobs_pb2.DeleteByFilterRequest(
        tenant=tenant,
        filter=None if found is None else filter_to_message(found),
        all_documents=found is None,
    )
    return await ask(worker_settings(target), lambda stub, time_s: stub.DeleteByFilter(request, timeout=time_s))


def _print(document: ingest_pb2.Document, json_output: bool) -> None:
    from services.cli.worker_calls import to_json

    if json_output:
        line = to_json(document)
    else:
        when = document.ingested_at.ToDatetime().isoformat(" ", "seconds")
        counts = f"{document.chunk_count} chunks, {document.token_count:,} tokens"
        line = f"{document.document_id} {document.title!r} ({counts}, ingested {when} UTC)"
    sys.stdout.write(line + "\n")
