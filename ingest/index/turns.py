"""One thread for an engine's blocking calls, one after another: searches before writes, but those do not starve."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

# A write that has waited for so long has every other turn.
PATIENCE_S = 0.02

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Turn:
    call: Callable[[], Any]
    future: Future[Any]
    since: float = field(default_factory=time.monotonic)


class Turns:
    """Runs calls on its thread. Within searches, and within writes, the first to come is the first to be run."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._searches: deque[_Turn] = deque()
        self._writes: deque[_Turn] = deque()
        self._ended = False
        # A daemon: what is killed while it waits for a call that never ends is to end all the same.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[], _Result], *, search: bool) -> _Result:
        """Run a call in its turn, and give what it gives; one that nobody waits for any more is left out."""
        turn = _Turn(call, Future())
        with self._changed:
            if self._ended:
                raise RuntimeError("The engine's thread has ended.")
            (self._searches if search else self._writes).append(turn)
            self._changed.notify()
        result: _Result = await asyncio.wrap_future(turn.future)
        return result

    def end(self) -> None:
        """End the thread when all calls that wait have been run; waits for nothing."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _run(self) -> None:
        was_write = False
        while (taken := self._take(was_write=was_write)) is not None:
            turn, was_write = taken
            if not turn.future.set_running_or_notify_cancel():
                continue
            try:
                result = turn.call()
            except BaseException as error:  # noqa: BLE001 - raised by whoever asked
                turn.future.set_exception(error)
            else:
                turn.future.set_result(result)
            del turn  # holds what was written

    def _take(self, *, was_write: bool) -> tuple[_Turn, bool] | None:
        with self._changed:
            while not (self._searches or self._writes or self._ended):
                self._changed.wait()
            if not (self._searches or self._writes):
                return None
            aged = self._writes and time.monotonic() - self._writes[0].since > PATIENCE_S
            write = bool(self._writes) and (not self._searches or (bool(aged) and not was_write))
            return (self._writes if write else self._searches).popleft(), write
