"""Ingestion at full speed, as a client of the ingestion worker; how fast it goes is read off its acknowledgements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

import grpc
import numpy as np
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from ingest.documents import Document

_MESSAGE_BYTES_MAX = 65 * 1024 * 1024


class Ingestion:
    """One stream of documents under way; :meth:`speed` says how fast it went between two moments."""

    def __init__(self, target: str, documents: Iterable[Document]) -> None:
        """``documents`` have to be enough for as long as the stream is open."""
        self._target = target
        self._documents = documents
        self._receipts: list[tuple[float, int]] = []  # moment, tokens
        self._task: asyncio.Task[None] | None = None
        self.refused = 0

    async def begin(self) -> None:
        """Send, until :meth:`end`; returns with the first acknowledgement."""
        self._task = asyncio.create_task(self._run())
        while not self._receipts:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        """Break the stream off; what was not acknowledged is of no interest."""
        if self._task is None:
            return
        if self._task.done():
            self._task.result()
            raise SystemExit("The documents for ingestion were too few; it ended before the measurement.")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def finish(self) -> int:
        """Wait for the last acknowledgement; gives the tokens of all documents."""
        assert self._task is not None
        await self._task
        return sum(tokens for _, tokens in self._receipts)

    def speed(self, begins: float, ends: float) -> float:
        """Give tokens a second between two moments of ``time.perf_counter``.

        Acknowledgements come in bursts, a batch of the encoder's each: the slope of a line through what had been
        acknowledged at each of twenty moments a second hangs less on where a burst falls than a quotient would.
        """
        moments = np.arange(begins, ends, 0.05)
        times = np.array([moment for moment, _ in self._receipts])
        total = np.concatenate([[0], np.cumsum([tokens for _, tokens in self._receipts])])
        acknowledged = total[np.searchsorted(times, moments)]
        return float(np.polyfit(moments - begins, acknowledged, 1)[0])

    async def _run(self) -> None:
        options = [("grpc.max_send_message_length", _MESSAGE_BYTES_MAX)]
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            stub = ingest_pb2_grpc.IngestServiceStub(channel)
            async for response in stub.IngestDocuments(self._requests()):
                if response.HasField("error"):
                    self.refused += 1
                elif not response.HasField("slow_down"):
                    self._receipts.append((time.perf_counter(), response.token_count))

    async def _requests(self) -> AsyncIterator[ingest_pb2.IngestDocumentsRequest]:
        for document in self._documents:
            yield ingest_pb2.IngestDocumentsRequest(
                document_id=document.document_id, text=document.text, title=document.title
            )
