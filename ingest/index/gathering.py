"""Calls that are made at once, as one: what many documents ask for in one moment need not travel each on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

TOGETHER_MAX = 64  # documents that are counted or committed as one

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")


class Gathering(Generic[_Question, _Answer]):
    """Asks questions that come in one turn of the event loop together, up to a number of them."""

    def __init__(
        self, ask_all: Callable[[Sequence[_Question]], Awaitable[Sequence[_Answer]]], at_once_max: int
    ) -> None:
        """``ask_all`` answers questions in their order; what it raises, each of them raises."""
        self._ask_all = ask_all
        self._at_once_max = at_once_max
        self._waiting: list[tuple[_Question, asyncio.Future[_Answer]]] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def ask(self, question: _Question) -> _Answer:
        """Ask a question, and wait for its answer."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._start)
        answer: asyncio.Future[_Answer] = loop.create_future()
        self._waiting.append((question, answer))
        return await answer

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), self._at_once_max):
            task = asyncio.create_task(self._answer(waiting[first : first + self._at_once_max]))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _answer(self, asked: Sequence[tuple[_Question, asyncio.Future[_Answer]]]) -> None:
        try:
            answers = await self._ask_all([question for question, _ in asked])
        except asyncio.CancelledError:  # a connection was closed under the call: nobody will answer
            for _, answer in asked:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised by those who asked
            for _, answer in asked:
                if not answer.done():  # whoever asked may have left
                    answer.set_exception(error)
            return
        for (_, answer), found in zip(asked, answers, strict=True):
            if not answer.done():
                answer.set_result(found)
