"""Documents to the ingestion worker and acknowledgements back, over one gRPC stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import grpc
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.errors import InvalidInput, MambaSearchError
from ingest.documents import Document, check_document
from ingest.index import wire
from ingest.receipts import LoadError, Outcome, Receipt
from services.cli.calling import call_error, open_channel

_OUTCOMES = {
    ingest_pb2.INGEST_OUTCOME_INGESTED: Outcome.INGESTED,
    ingest_pb2.INGEST_OUTCOME_UPDATED: Outcome.UPDATED,
    ingest_pb2.INGEST_OUTCOME_UNCHANGED: Outcome.UNCHANGED,
    ingest_pb2.INGEST_OUTCOME_SUPERSEDED: Outcome.SUPERSEDED,
    ingest_pb2.INGEST_OUTCOME_REJECTED: Outcome.REJECTED,
}


async def ingest_over_grpc(target: str, items: Iterator[Document | LoadError]) -> AsyncGenerator[Receipt, None]:
    """Send documents to the worker at ``target``; give a receipt for each, and for each that could not be read.

    The worker reads ahead of its acknowledgements by a bounded number of documents, and gRPC holds the rest back.
    """
    unread: asyncio.Queue[LoadError] = asyncio.Queue()
    sources: dict[str, str] = {}

    async def requests() -> AsyncIterator[ingest_pb2.IngestDocumentsRequest]:
        while (item := await asyncio.to_thread(next, items, None)) is not None:
            found = _checked(item)
            if isinstance(found, LoadError):
                unread.put_nowait(found)
                continue
            sources[found.document_id] = found.source
            yield ingest_pb2.IngestDocumentsRequest(
                document_id=found.document_id,
                title=found.title,
                text=found.text,
                source=found.source,
                metadata=wire.metadata_to_messages(found.metadata),
                tenant=found.tenant,
                growing=found.growing,
            )

    async with open_channel(target) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        try:
            async for response in stub.IngestDocuments(requests()):
                while not unread.empty():
                    yield _unread(unread.get_nowait())
                yield _receipt(response, sources.get(response.document_id, ""))
        except grpc.aio.AioRpcError as error:
            raise call_error(error, "ingestion worker", target) from None
    while not unread.empty():
        yield _unread(unread.get_nowait())


def _checked(item: Document | LoadError) -> Document | LoadError:
    """Refuse here what a message cannot carry: an error while one is made would end the stream."""
    if isinstance(item, LoadError):
        return item
    try:
        check_document(item)
    except InvalidInput as error:
        return LoadError(item.source or item.document_id, error)
    return item


def _unread(found: LoadError) -> Receipt:
    return Receipt("", found.source, Outcome.REJECTED, error=found.error)


def _receipt(response: ingest_pb2.IngestDocumentsResponse, source: str) -> Receipt:
    outcome = _OUTCOMES[response.outcome]
    error: MambaSearchError | None = None
    if outcome is Outcome.REJECTED:
        error = InvalidInput(response.error.field, response.error.message)
    return Receipt(
        response.document_id,
        source,
        outcome,
        response.chunk_count,
        response.token_count,
        response.generation,
        error,
    )
