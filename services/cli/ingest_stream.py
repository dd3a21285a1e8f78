"""Documents to the ingestion worker and acknowledgements back, over one gRPC stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import grpc
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.errors import InvalidInput, MambaSearchError, Unavailable
from ingest.documents import Document, check_document
from ingest.index import wire
from ingest.index.interface import DocumentKey
from ingest.receipts import LoadError, Outcome, Receipt
from services.cli.calling import call_error, open_channel

_OUTCOMES = {
    ingest_pb2.INGEST_OUTCOME_INGESTED: Outcome.INGESTED,
    ingest_pb2.INGEST_OUTCOME_UPDATED: Outcome.UPDATED,
    ingest_pb2.INGEST_OUTCOME_UNCHANGED: Outcome.UNCHANGED,
    ingest_pb2.INGEST_OUTCOME_SUPERSEDED: Outcome.SUPERSEDED,
    ingest_pb2.INGEST_OUTCOME_REJECTED: Outcome.REJECTED,
}


class OverGrpc:
    """The ingestion worker, as a target of documents."""

    def __init__(self, target: str, timeout_s: float) -> None:
        """``timeout_s`` is for a deletion; a stream takes as long as it takes."""
        self._target = target
        self._timeout_s = timeout_s

    async def ingest(self, items: Iterator[Document | LoadError]) -> AsyncGenerator[Receipt, None]:
        """Send documents; give a receipt for each, and for each that could not be read.

        The worker reads ahead of its acknowledgements by a bounded number of documents, and gRPC holds the rest back.
        """
        unread: asyncio.Queue[LoadError] = asyncio.Queue()
        sources: deque[str] = deque()  # of documents without an acknowledgement, which come in order

        async def requests() -> AsyncIterator[ingest_pb2.IngestDocumentsRequest]:
            while (item := await asyncio.to_thread(next, items, None)) is not None:
                found = _checked(item)
                if isinstance(found, LoadError):
                    unread.put_nowait(found)
                    continue
                sources.append(found.source)
                yield _request(found)

        async with open_channel(self._target) as channel:
            stub = ingest_pb2_grpc.IngestServiceStub(channel)
            try:
                async for response in stub.IngestDocuments(requests()):
                    while not unread.empty():
                        yield _unread(unread.get_nowait())
                    yield _receipt(response, sources.popleft())
            except grpc.aio.AioRpcError as error:
                raise call_error(error, "ingestion worker", self._target) from None
        while not unread.empty():
            yield _unread(unread.get_nowait())

    async def delete(self, key: DocumentKey) -> None:
        """Take a document out; :class:`encoder.errors.NotFound` where there is none."""
        request = ingest_pb2.DeleteDocumentRequest(document_id=key.document_id, tenant=key.tenant)
        async with open_channel(self._target) as channel:
            try:
                await ingest_pb2_grpc.IngestServiceStub(channel).DeleteDocument(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                raise call_error(error, "ingestion worker", self._target) from None


def _request(document: Document) -> ingest_pb2.IngestDocumentsRequest:
    return ingest_pb2.IngestDocumentsRequest(
        document_id=document.document_id,
        title=document.title,
        text=document.text,
        source=document.source,
        metadata=wire.metadata_to_messages(document.metadata),
        tenant=document.tenant,
        growing=document.growing,
    )


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
        told = response.error
        # A document whose field is at fault stays refused; another one may be sent again.
        passing = told.code == grpc.StatusCode.UNAVAILABLE.value[0]
        error = Unavailable(told.message) if passing else InvalidInput(told.field, told.message)
    return Receipt(
        response.document_id,
        source,
        outcome,
        response.chunk_count,
        response.token_count,
        response.generation,
        error,
    )
