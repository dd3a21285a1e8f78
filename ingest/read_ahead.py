"""Reading documents ahead of their ingestion, by a bounded amount."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from ingest.documents import Document
from ingest.receipts import LoadError

Item = Document | LoadError

_Result = TypeVar("_Result")

GROUP_ITEMS_MAX = 64
GROUP_CHARS_MAX = 2_000_000
# Documents read but not yet taken; a single one may be larger.
AHEAD_ITEMS_MAX = 128
AHEAD_CHARS_MAX = 8_000_000


class ReadAhead:
    """Fills up in the background; :meth:`next_group` takes what is there, and never waits for more than one item."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._chars = 0
        self._ended = False
        self._failure: Exception | None = None
        self._changed = asyncio.Condition()

    @property
    def is_empty(self) -> bool:
        """Whether the next group is yet to be read."""
        return not self._items

    async def next_group(self) -> list[Item]:
        """Take the next items, at least one: as many as there are, within limits, and no id twice. Empty at the end.

        Raises what reading raised, once all before it has been taken.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._items or self._ended)
            if not self._items and self._failure:
                raise self._failure
            group: list[Item] = []
            keys: set[tuple[str, str]] = set()
            chars = 0
            while self._items and len(group) < GROUP_ITEMS_MAX:
                item = self._items[0]
                if group and chars + _size(item) > GROUP_CHARS_MAX:
                    break
                if isinstance(item, Document):
                    key = (item.tenant, item.document_id)
                    if key in keys:
                        break
                    keys.add(key)
                chars += _size(item)
                group.append(self._items.popleft())
            self._chars -= chars
            self._changed.notify_all()
            return group

    async def put(self, item: Item) -> bool:
        """Add an item, waiting while too much is unread; say whether more are wanted."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or self._has_room(item))
            if not self._ended:
                self._items.append(item)
                self._chars += _size(item)
                self._changed.notify_all()
            return not self._ended

    async def end(self, failure: Exception | None = None) -> None:
        """Say that there is no more, and why if reading failed."""
        async with self._changed:
            if not self._ended:
                self._ended, self._failure = True, failure
                self._changed.notify_all()

    def _has_room(self, item: Item) -> bool:
        if not self._items:
            return True
        return len(self._items) < AHEAD_ITEMS_MAX and self._chars + _size(item) <= AHEAD_CHARS_MAX


@asynccontextmanager
async def reading_ahead(items: AsyncIterable[Item] | Iterable[Item]) -> AsyncIterator[ReadAhead]:
    """Read in the background while the block runs; what cannot wait (files) is read in a thread."""
    ahead = ReadAhead()
    task: asyncio.Task[None] | None = None
    if isinstance(items, AsyncIterable):
        task = asyncio.create_task(_fill(ahead, items))
    else:
        # A daemon: one that is stuck in a read (standard input) must not keep the process from ending.
        threading.Thread(
            target=_fill_in_thread, args=(ahead, items, asyncio.get_running_loop()), name="read-ahead", daemon=True
        ).start()
    try:
        yield ahead
    finally:
        await ahead.end()
        if task:
            task.cancel()
            await asyncio.wait([task])


async def _fill(ahead: ReadAhead, items: AsyncIterable[Item]) -> None:
    try:
        async for item in items:
            if not await ahead.put(item):
                return
    except Exception as error:  # noqa: BLE001 - raised again by next_group, in its place
        await ahead.end(error)
    else:
        await ahead.end()


def _fill_in_thread(ahead: ReadAhead, items: Iterable[Item], loop: asyncio.AbstractEventLoop) -> None:
    failure: Exception | None = None
    # The loop may close while the thread waits for it: then nobody wants more.
    with suppress(RuntimeError, CancelledError):
        try:
            for item in items:
                if not _run_in(loop, partial(ahead.put, item)):
                    return
        except Exception as error:  # noqa: BLE001 - raised again by next_group, in its place
            failure = error
        _run_in(loop, partial(ahead.end, failure))


def _run_in(loop: asyncio.AbstractEventLoop, call: Callable[[], Coroutine[None, None, _Result]]) -> _Result:
    """Run a call in another thread's event loop, and wait for its result.

    :class:`RuntimeError` where the loop is closed. The coroutine is made in the loop: one that was made here would be
    left over where the loop ends before it begins.
    """
    found: Future[_Result] = Future()

    def begin() -> None:
        loop.create_task(call()).add_done_callback(partial(_hand_over, found))

    loop.call_soon_threadsafe(begin)
    return found.result()


def _hand_over(found: Future[_Result], task: asyncio.Task[_Result]) -> None:
    if task.cancelled():
        found.set_exception(CancelledError())
    elif error := task.exception():
        found.set_exception(error)
    else:
        found.set_result(task.result())


def _size(item: Item) -> int:
    return len(item.text) if isinstance(item, Document) else 0
