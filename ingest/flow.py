"""A stream of documents between the stages of ingestion: prepared and encoded ahead, settled in order.

One task prepares documents, another starts batches of their chunks, of which a few are under way at once, a third
settles what is written. Batches reach across groups of documents, so the encoder has work as long as there are
documents. What is under way is bounded by its text, and with what is settled and not taken by its number; who does not
take what is settled holds up nothing that is under way already. Knows neither index nor encoder: it calls what it is
given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from ingest.read_ahead import Item, ReadAhead
from ingest.slots import Batch, Batcher, Slot

# While one batch is written to the index, others are being encoded.
BATCHES_IN_FLIGHT = 3
# Of documents that are prepared and not taken, before another group is; of their texts until they are settled. A single
# text may be larger.
ITEMS_MAX = 256
TEXT_BYTES_MAX = 8_000_000
SETTLED_AT_ONCE = 64

# Prepares a group; before it waits for a document that someone holds, it calls what it is given, so that nothing that
# is prepared already waits with it: else two streams could wait for each other.
Prepare = Callable[[Sequence[Item], Callable[[], Awaitable[None]]], Awaitable[list[Slot]]]
Write = Callable[[Batch], Coroutine[None, None, None]]
Settle = Callable[[Sequence[Slot]], Awaitable[None]]

_EVERYTHING: Sequence[Slot] = ()  # in place of a group: what has not filled a batch is a batch now


class Flow:
    """One stream's documents under way. :meth:`close` ends its tasks."""

    def __init__(self, ahead: ReadAhead, batcher: Batcher, prepare: Prepare, write: Write, settle: Settle) -> None:
        self._ahead = ahead
        self._batcher = batcher
        self._prepare = prepare
        self._write = write
        self._settle = settle
        self._slots: deque[Slot] = deque()
        self._settled: deque[Slot] = deque()
        self._text_bytes = 0
        self._failure: BaseException | None = None
        self._broken: Exception | None = None  # the source, which ended early: what came before goes on
        self._news = asyncio.Event()  # for the task that settles
        self._arrived = asyncio.Event()  # for whoever takes what is settled
        self._room = asyncio.Event()  # for the task that prepares
        self._prepared: asyncio.Queue[Sequence[Slot]] = asyncio.Queue(maxsize=1)
        self._places = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._writing: set[asyncio.Task[None]] = set()
        self._preparing = asyncio.create_task(self._prepare_all())
        self._batching = asyncio.create_task(self._batch_all())
        self._settling = asyncio.create_task(self._settle_all())
        for task in (self._preparing, self._batching, self._settling):
            task.add_done_callback(self._note)

    async def settled(self) -> list[Slot]:
        """Take the next documents that are settled, in order; empty at the end.

        Raises what preparing, writing or settling raised, once all that was settled before has been taken, and what
        reading raised, once all that was read has been.
        """
        while not self._settled:
            if self._settling.done():
                if failure := self._failure or self._broken:
                    raise failure
                return []
            self._arrived.clear()
            await self._arrived.wait()
        found = list(self._settled)
        self._settled.clear()
        self._room.set()
        return found

    @property
    def under_way(self) -> list[Slot]:
        """The documents that nobody has begun to settle."""
        return list(self._slots)

    async def close(self) -> None:
        """Stop all tasks."""
        tasks = [self._preparing, self._batching, self._settling, *self._writing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _is_full(self) -> bool:
        return len(self._slots) + len(self._settled) >= ITEMS_MAX or self._text_bytes >= TEXT_BYTES_MAX

    async def _prepare_all(self) -> None:
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
            self._text_bytes += sum(slot.text_bytes for slot in slots)
            self._news.set()
            await self._prepared.put(slots)
            while self._is_full:
                await self._flush()
                self._room.clear()
                await self._room.wait()
        await self._flush()

    async def _flush(self) -> None:
        """Have all that is prepared written, also what fills no batch."""
        await self._prepared.put(_EVERYTHING)

    async def _batch_all(self) -> None:
        while True:
            slots = await self._prepared.get()
            for batch in self._batcher.add(slots):
                await self._start(batch)
            if slots is _EVERYTHING:
                await self._start(self._batcher.rest())

    async def _settle_all(self) -> None:
        while True:
            while not (found := self._take()):
                if self._failure or (self._preparing.done() and not self._slots):
                    return
                self._news.clear()
                await self._news.wait()
            text_bytes = sum(slot.text_bytes for slot in found)
            await self._settle(found)
            self._text_bytes -= text_bytes
            self._settled.extend(found)
            self._arrived.set()
            self._room.set()

    def _take(self) -> list[Slot]:
        found: list[Slot] = []
        while self._slots and not self._slots[0].outstanding and len(found) < SETTLED_AT_ONCE:
            found.append(self._slots.popleft())
        return found

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
        self._arrived.set()
