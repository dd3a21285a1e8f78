"""Sends what a source wants to two workers, through all failures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from tests.benchmarks.crashes.source import Source, grows

STALLED_S = 2.0  # without an end of its stream, before the other worker is asked as well
_ACKNOWLEDGED = (ingest_pb2.INGEST_OUTCOME_INGESTED, ingest_pb2.INGEST_OUTCOME_UNCHANGED)
_TIMEOUT_S = 60


async def send(source: Source, share: int, targets: Sequence[str], done: asyncio.Event) -> None:
    """Keep sending a share of the documents, until ``done`` and nothing of it is missing.

    Each share has a worker of its own. While that one is stalled, the other is sent the same versions as well, and new
    ones come only after both streams have ended: what one of them writes late is then never older than what is wanted.
    """
    own, other = targets[share], targets[1 - share]
    while not (done.is_set() and not source.missing(share, len(targets))):
        versions = source.next_versions(share, len(targets), renew=not done.is_set())
        streams = {asyncio.create_task(send_to(source, own, versions))}
        _, stalled = await asyncio.wait(streams, timeout=STALLED_S)
        if stalled:
            streams.add(asyncio.create_task(send_to(source, other, versions)))
        await asyncio.gather(*streams)
        await asyncio.sleep(0.05)


async def send_to(source: Source, target: str, versions: Sequence[tuple[str, int]]) -> None:
    """Send versions to one worker, as far as it answers."""
    sent = dict(versions)

    async def requests() -> AsyncIterator[ingest_pb2.IngestDocumentsRequest]:
        for name, text in source.texts(versions):
            yield ingest_pb2.IngestDocumentsRequest(document_id=name, text=text, growing=grows(name))

    with contextlib.suppress(grpc.aio.AioRpcError):
        async with grpc.aio.insecure_channel(target) as channel:
            stub = ingest_pb2_grpc.IngestServiceStub(channel)
            async for answer in stub.IngestDocuments(requests(), timeout=_TIMEOUT_S):
                if answer.HasField("slow_down"):
                    continue
                source.receipts[ingest_pb2.IngestOutcome.Name(answer.outcome)] += 1
                if answer.outcome in _ACKNOWLEDGED:
                    source.acknowledged[answer.document_id] = sent[answer.document_id]
                source.fenced += answer.outcome == ingest_pb2.INGEST_OUTCOME_SUPERSEDED
                source.fenced += "was taken over" in answer.error.message
            for name, version in versions:
                if version < 0:
                    await _delete(source, stub, name, version)


async def _delete(source: Source, stub: ingest_pb2_grpc.IngestServiceStub, name: str, version: int) -> None:
    """Delete a document. One that is not there has been deleted before, without our hearing of it."""
    try:
        await stub.DeleteDocument(ingest_pb2.DeleteDocumentRequest(document_id=name), timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
    source.acknowledged[name] = version
    source.receipts["deleted"] += 1
