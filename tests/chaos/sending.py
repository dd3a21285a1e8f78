"""Documents without a pause while parts fail: what has no acknowledgement is sent again, what has one must be there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc

from tests.chaos.asking import HONEST, OpenChannel

TENANT = "chaos"  # not that of the known answers
BATCH = 8  # documents of one stream
PAUSE_S = 0.1
STREAM_TIMEOUT_S = 60.0
_RETRY_S = 0.3
_DONE = {ingest_pb2.INGEST_OUTCOME_INGESTED, ingest_pb2.INGEST_OUTCOME_UNCHANGED}


@dataclass(slots=True)
class Sent:
    """What was sent and acknowledged, and what went wrong."""

    acknowledged: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    retries: int = 0


def document_id(number: int) -> str:
    """Name a document."""
    return f"document-{number}"


def word(number: int) -> str:
    """Give the word that stands in one document alone."""
    return f"marker{number:06d}"


def _request(number: int) -> ingest_pb2.IngestDocumentsRequest:
    text = f"The {word(number)} was entered in the book that the keeper of the light left behind on the rock."
    return ingest_pb2.IngestDocumentsRequest(document_id=document_id(number), text=text, tenant=TENANT)


async def send_until(done: asyncio.Event, open_channel: OpenChannel, sent: Sent) -> None:
    """Send batch after batch; each until all of it has its acknowledgement, also after ``done``."""
    number = 0
    async with open_channel("ingest") as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        while not done.is_set():
            left = list(range(number, number + BATCH))
            number += BATCH
            while left:
                try:
                    async for response in stub.IngestDocuments(_requests(left), timeout=STREAM_TIMEOUT_S):
                        if response.HasField("slow_down"):
                            continue
                        if response.outcome not in _DONE:
                            sent.problems.append(f"{response.document_id} was refused: {response.error.message}")
                        sent.acknowledged.append(left.pop(0))
                except grpc.aio.AioRpcError as error:
                    if error.code() not in HONEST:
                        sent.problems.append(f"ingestion answered {error.code().name}: {(error.details() or '')[:200]}")
                    sent.retries += 1
                    await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(PAUSE_S)


async def _requests(numbers: list[int]) -> AsyncIterator[ingest_pb2.IngestDocumentsRequest]:
    for number in list(numbers):
        yield _request(number)


async def missing(open_channel: OpenChannel, sent: Sent) -> list[str]:
    """Name what was acknowledged and is not there, or cannot be found, or is there more than once."""
    problems = []
    async with open_channel("ingest") as ingest_channel, open_channel("search") as search_channel:
        ingest = ingest_pb2_grpc.IngestServiceStub(ingest_channel)
        search = search_pb2_grpc.SearchServiceStub(search_channel)
        for number in sent.acknowledged:
            name = document_id(number)
            try:
                request = ingest_pb2.GetDocumentRequest(document_id=name, tenant=TENANT)
                await ingest.GetDocument(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                problems.append(f"{name} was acknowledged and is not there: {error.code().name}")
                continue
            asked = search_pb2.SearchRequest(
                query=word(number), mode=search_pb2.SEARCH_MODE_SPARSE, top_k=3, tenant=TENANT
            )
            found = [hit.document_id for hit in (await search.Search(asked, timeout=10)).hits]
            if found != [name]:
                problems.append(f"{name} was acknowledged; its own word finds {found}")
    return problems
