"""Documents to the ingestion worker and acknowledgements back, over one gRPC stream."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import grpc
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.errors import InvalidInput, MambaSearchError, Overloaded, Unavailable
from ingest.documents import Document, check_document
from ingest.index.interface import DocumentKey
from ingest.index.metadata_messages import metadata_to_messages
from ingest.receipts import LoadError, Outcome, Receipt
from services.cli.calling import call_error, open_channel
from services.ingestion.outcomes import RECEIPT_OUTCOMES
from services.setting_groups import CallerSettings

REFUSALS_MAX = 5  # of a stream, for want of room, before it is given up
PAUSE_S_MAX = 60.0
RETRY_S = 0.5


class OverGrpc:
    """The ingestion worker, as a target of documents."""

    def __init__(self, target: str, timeout_s: float, caller: CallerSettings) -> None:
        """``timeout_s`` is for a deletion; a stream takes as long as it takes."""
        self._target = target
        self._caller = caller
        self._timeout_s = timeout_s

    async def ingest(self, items: Iterator[Document | LoadError]) -> AsyncGenerator[Receipt, None]:
        """Send documents; give a receipt for each, and for each that could not be read.

        The worker reads ahead of its acknowledgements by a bounded number of documents, and gRPC holds the rest back.
        Where the worker says to slow down, nothing is sent for so long; where it has no room for the stream, another is
        begun when it said, a few times, with the documents that have no receipt.
        """
        outbox = _Outbox(items)
        async with open_channel(self._target, self._caller) as channel:
            stub = ingest_pb2_grpc.IngestServiceStub(channel)
            for refusals_left in reversed(range(REFUSALS_MAX + 1)):
                try:
                    async for response in stub.IngestDocuments(outbox.requests()):
                        for found in outbox.take_unread():
                            yield found
                        if response.HasField("slow_down"):
                            outbox.pause(response.slow_down.retry_delay.ToMilliseconds() / 1000)
                            continue
                        yield _receipt(response, outbox.take_back().source)
                    if not outbox.is_done:
                        raise Unavailable(
                            f"The ingestion worker at {self._target} ended the stream before all was acknowledged; "
                            "ingest the rest again."
                        )
                    break
                except grpc.aio.AioRpcError as error:
                    told = call_error(error, "ingestion worker", self._target)
                    delay_s = _delay_of(error, told)
                    if delay_s is None or not refusals_left:
                        raise told from None
                    await asyncio.sleep(delay_s)
        for found in outbox.take_unread():
            yield found

    async def delete(self, key: DocumentKey) -> None:
        """Take a document out; :class:`encoder.errors.NotFound` where there is none."""
        request = ingest_pb2.DeleteDocumentRequest(document_id=key.document_id, tenant=key.tenant)
        async with open_channel(self._target, self._caller) as channel:
            try:
                await ingest_pb2_grpc.IngestServiceStub(channel).DeleteDocument(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                raise call_error(error, "ingestion worker", self._target) from None


class _Outbox:
    """The documents of a stream: those that are sent and not acknowledged are sent again by the next one."""

    def __init__(self, items: Iterator[Document | LoadError]) -> None:
        self._items = items
        self._reading: asyncio.Future[Document | LoadError | None] | None = None
        self._under_way: deque[Document] = deque()
        self._unread: deque[LoadError] = deque()
        self._paused_until = 0.0
        self._ended = False

    @property
    def is_done(self) -> bool:
        """Whether all has been read, and has its receipt."""
        return self._ended and not self._under_way

    async def requests(self) -> AsyncIterator[ingest_pb2.IngestDocumentsRequest]:
        """Give what has no receipt, then what is yet to be read; in the order of receipts."""
        for document in list(self._under_way):
            yield _request(document)
        while (item := await self._read()) is not None:
            found = _checked(item)
            if isinstance(found, LoadError):
                self._unread.append(found)
                continue
            await asyncio.sleep(self._paused_until - time.monotonic())
            self._under_way.append(found)
            yield _request(found)
        self._ended = True

    def take_back(self) -> Document:
        """Take back the first document, whose receipt has come."""
        return self._under_way.popleft()

    def take_unread(self) -> Iterator[Receipt]:
        """Give receipts for what could not be read."""
        while self._unread:
            found = self._unread.popleft()
            yield Receipt("", found.source, Outcome.REJECTED, error=found.error)

    def pause(self, delay_s: float) -> None:
        """Send nothing for so long."""
        self._paused_until = time.monotonic() + min(delay_s, PAUSE_S_MAX)

    async def _read(self) -> Document | LoadError | None:
        """Read an item; a stream that ends meanwhile leaves it to the next one."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.to_thread(next, self._items, None))
        item = await asyncio.shield(self._reading)
        self._reading = None
        return item


def _delay_of(error: grpc.aio.AioRpcError, told: MambaSearchError) -> float | None:
    """Say when another stream may be begun; None where that is of no use."""
    if isinstance(told, Overloaded):
        return told.retry_after_s
    # A write that meets the end of the stream comes before the worker's reason, which another stream will be told.
    lost_reason = error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata()
    return RETRY_S if lost_reason else None


def _request(document: Document) -> ingest_pb2.IngestDocumentsRequest:
    return ingest_pb2.IngestDocumentsRequest(
        document_id=document.document_id,
        title=document.title,
        text=document.text,
        source=document.source,
        metadata=metadata_to_messages(document.metadata),
        tenant=document.tenant,
        growing=document.growing,
        in_place_of=document.in_place_of,
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


def _receipt(response: ingest_pb2.IngestDocumentsResponse, source: str) -> Receipt:
    outcome = RECEIPT_OUTCOMES[response.outcome]
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
