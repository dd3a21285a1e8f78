"""A stream of documents between the stages of ingestion: prepared and encoded ahead, settled in order.

One task reads groups of documents, of which a few are prepared at once, another starts batches of their chunks, of
which a few are under way at once, a third settles what is written. Batches reach across groups of documents, so the
encoder has work as long as there are documents. What is under way is bounded by its text, and with what is settled and
not taken by its number; who does not take what is settled holds up nothing that is under way already. Knows neither
index nor encoder: it calls what it is given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from encoder.errors import Unavailable
from ingest.read_ahead import Item, ReadAhead
from ingest.slots import Batch, Batcher, Slot

# While one group is cut, the one before is given its generations.
GROUPS_IN_PREPARATION = 2
# While one batch is written to the index, others are being encoded.
BATCHES_IN_FLIGHT = 3
# Of documents that are prepared and not taken, before another group is; of their texts until they are settled. A single
# text may be larger.
ITEMS_MAX = 256
TEXT_BYTES_MAX = 8_000_000
SETTLED_AT_ONCE = 256

_EVERYTHING: Sequence[Slot] = ()  # in place of a group: what has not filled a batch is a batch now


@dataclass(frozen=True, slots=True)
class Stages:
    """What is done to documents, one after another."""

    # Makes the slots of a group, and keeps its documents from others. Before it waits for one that somebody holds, it
    # calls what it is given, so that nothing that is prepared already waits with it: else two streams could wait for
    # each other.
    hold: Callable[[Sequence[Item], Callable[[], Awaitable[None]]], Awaitable[list[Slot]]]
    prepare: Callable[[Sequence[Slot]], Awaitable[None]]
    write: Callable[[Batch[Slot]], Coroutine[None, None, None]]
    settle: Callable[[Sequence[Slot]], Awaitable[None]]  # and lets go of them
    let_go: Callable[[Sequence[Slot]], None]


class Flow:
    """One stream's documents under way. :meth:`close` ends its tasks, and lets go of what is not settled."""

    def __init__(self, ahead: ReadAhead, batcher: Batcher[Slot], stages: Stages) -> None:
        self._ahead = ahead
        self._batcher = batcher
        self._stages = stages
        self._in_preparation: deque[Sequence[Slot]] = deque()
        self._slots: deque[Slot] = deque()
        self._settled: deque[Slot] = deque()
        self._text_bytes = 0
        self._failure: BaseException | None = None
        self._broken: Exception | None = None  # the source, which ended early: what came before goes on
        self._news = asyncio.Event()  # for the task that settles
        self._arrived = asyncio.Event()  # for whoever takes what is settled
        self._room = asyncio.Event()  # for the task that reads
        self._prepared: asyncio.Queue[Sequence[Slot]] = asyncio.Queue(maxsize=1)
        self._groups = asyncio.Semaphore(GROUPS_IN_PREPARATION)
        self._batches = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = self._begin(self._read_all())
        self._settling = self._begin(self._settle_all())
        self._begin(self._batch_all())

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

    async def close(self) -> None:
        """Stop all tasks; what nobody has begun to settle is left to whoever clears away."""
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:  # also where this is cancelled in its turn: nobody else could ever have these documents
            self._stages.let_go([*self._slots, *chain.from_iterable(self._in_preparation)])

    @property
    def _is_full(self) -> bool:
        return len(self._slots) + len(self._settled) >= ITEMS_MAX or self._text_bytes >= TEXT_BYTES_MAX

    async def _read_all(self) -> None:
        before: asyncio.Task[None] | None = None  # the preparation of the group before
        while not self._failure:
            await self._groups.acquire()
            if self._ahead.is_empty:
                # What has not filled a batch does not wait for documents that may never come.
                await self._flush_after(before)
            try:
                group = await self._ahead.next_group()
            except Exception as error:  # noqa: BLE001 - a source may raise anything; raised again in its place
                self._broken = error
                break
            if not group:
                break
            slots = await self._stages.hold(group, partial(self._flush_after, before))
            self._in_preparation.append(slots)
            before = self._begin(self._prepare(slots, before))
            before.add_done_callback(lambda _: self._groups.release())
            while self._is_full and not self._failure:
                self._room.clear()  # first: room may be made while the group before is still prepared
                await self._flush_after(before)
                await self._room.wait()
        await self._flush_after(before)

    async def _prepare(self, slots: Sequence[Slot], before: asyncio.Task[None] | None) -> None:
        """Prepare a group, and pass it on after the one before; where that one failed, this one goes no further."""
        try:
            await self._stages.prepare(slots)
            if before:
                await before
        except BaseException:
            self._in_preparation.remove(slots)
            self._stages.let_go(slots)
            raise
        self._in_preparation.popleft()
        self._slots.extend(slots)
        self._text_bytes += sum(slot.text_bytes for slot in slots)
        self._news.set()
        await self._prepared.put(slots)

    async def _flush_after(self, before: asyncio.Task[None] | None) -> None:
        """Have all that is prepared written, also what fills no batch."""
        if before:
            await asyncio.wait({before})
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
                if self._failure or (self._reading.done() and not self._slots):
                    return
                self._news.clear()
                await self._news.wait()
            text_bytes = sum(slot.text_bytes for slot in found)
            await self._stages.settle(found)
            self._text_bytes -= text_bytes
            self._settled.extend(found)
            self._arrived.set()
            self._room.set()

    def _take(self) -> list[Slot]:
        found: list[Slot] = []
        while self._slots and not self._slots[0].outstanding and len(found) < SETTLED_AT_ONCE:
            found.append(self._slots.popleft())
        return found

    async def _start(self, batch: Batch[Slot]) -> None:
        if batch:
            await self._batches.acquire()
            self._begin(self._stages.write(batch)).add_done_callback(lambda _: self._batches.release())

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # Before the end nobody here does that: a connection was closed under its call.
            self._failure = self._failure or Unavailable("A connection was closed meanwhile; ingest the rest again.")
        elif error := task.exception():
            self._failure = self._failure or error
        self._news.set()
        self._arrived.set()
        self._room.set()
