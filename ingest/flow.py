"""A stream of documents between the stages of ingestion: prepared and encoded ahead, settled in order.

One task prepares documents and starts batches, of which a few are under way at once; whoever takes slots settles them.
Batches reach across groups of documents, so the encoder has work as long as there are documents. What is under way is
bounded by its text. Knows neither index nor encoder: it calls what it is given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from ingest.read_ahead import Item, ReadAhead
from ingest.slots import Batch, Batcher, Slot

# While one batch is written to the index, others are being encoded.
BATCHES_IN_FLIGHT = 3
# Of documents that are prepared and not settled, before another group is; a single text may be larger.
ITEMS_MAX = 128
TEXT_BYTES_MAX = 8_000_000
SETTLED_AT_ONCE = 64

# Prepares a group; before it waits for a document that someone holds, it calls what it is given, so that nothing that
# is prepared already waits with it: else two streams could wait for each other.
Prepare = Callable[[Sequence[Item], Callable[[], Awaitable[None]]], Awaitable[list[Slot]]]
Write = Callable[[Batch], Coroutine[None, None, None]]


class Flow:
    """One stream's documents under way. :meth:`close` ends its tasks."""

    def __init__(self, ahead: ReadAhead, batcher: Batcher, prepare: Prepare, write: Write) -> None:
        self._ahead = ahead
        self._batcher = batcher
        self._prepare = prepare
        self._write = write
        self._slots: deque[Slot] = deque()
        self._under_way = 0
        self._text_bytes = 0
        self._failure: BaseException | None = None
        self._broken: Exception | None = None  # the source, which ended early: what came before goes on
        self._news = asyncio.Event()  # for whoever takes slots
        self._room = asyncio.Event()  # for the producer
        self._places = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._writing: set[asyncio.Task[None]] = set()
        self._producer = asyncio.create_task(self._produce())
        self._producer.add_done_callback(self._note)

    async def written(self) -> list[Slot]:
        """Take the next documents in order, those that have no chunk left to write; empty at the end.

        Raises what preparing or writing raised, once all that was written before has been taken, and what reading
        raised, once all that was read has been.
        """
        while not (found := self._take()):
            if self._failure:
                raise self._failure
            if self._producer.done() and not self._slots:
                if self._broken:
                    raise self._broken
                return []
            self._news.clear()
            await self._news.wait()
        return found

    def settled(self, slots: Sequence[Slot]) -> None:
        """Say that documents are done with: there is room for others."""
        self._under_way -= len(slots)
        self._text_bytes -= sum(slot.text_bytes for slot in slots)
        self._room.set()

    @property
    def under_way(self) -> list[Slot]:
        """The documents that have not been taken."""
        return list(self._slots)

    async def close(self) -> None:
        """Stop all tasks."""
        tasks = [self._producer, *self._writing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self) -> list[Slot]:
        found: list[Slot] = []
        while self._slots and not self._slots[0].outstanding and len(found) < SETTLED_AT_ONCE:
            found.append(self._slots.popleft())
        return found

    async def _produce(self) -> None:
        while True:
            if self._ahead.is_empty:
                # What has not filled a batch does not wait for documents that may never come.
                await self._flush()
            try:
                group = await self._ahead.next_group()
            except Exception as error:  # noqa: BLE001 - a source may raise anything; raised again in its place
                self._broken = error
                break
            if not group:
                break
            slots = await self._prepare(group, self._flush)
            self._slots.extend(slots)
            self._under_way += len(slots)
            self._text_bytes += sum(slot.text_bytes for slot in slots)
            self._news.set()
            for batch in self._batcher.add(slots):
                await self._start(batch)
            while self._under_way >= ITEMS_MAX or self._text_bytes >= TEXT_BYTES_MAX:
                await self._flush()
                self._room.clear()
                await self._room.wait()
        await self._flush()

    async def _flush(self) -> None:
        await self._start(self._batcher.rest())

    async def _start(self, batch: Batch) -> None:
        if not batch:
            return
        await self._places.acquire()
        task = asyncio.create_task(self._write(batch))
        self._writing.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        self._places.release()
        self._note(task)

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._failure = self._failure or error
        self._news.set()
