"""Questions asked at once travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from encoder.errors import IndexUnavailable
from ingest.index.gathering import Gathering


async def test_what_is_asked_at_once_travels_together() -> None:
    asked: list[list[int]] = []

    async def double_all(numbers: Sequence[int]) -> list[int]:
        asked.append(list(numbers))
        await asyncio.sleep(0)
        return [2 * number for number in numbers]

    gathering = Gathering(double_all, 4)
    assert await asyncio.gather(*(gathering.ask(number) for number in range(10))) == [2 * n for n in range(10)]
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert await gathering.ask(5) == 10
    assert asked[3:] == [[5]]


async def test_a_failure_is_that_of_all_who_asked_together() -> None:
    async def fail(numbers: Sequence[int]) -> list[int]:
        raise IndexUnavailable(f"{len(numbers)} asked")

    gathering = Gathering(fail, 4)
    for found in await asyncio.gather(gathering.ask(1), gathering.ask(2), return_exceptions=True):
        assert isinstance(found, IndexUnavailable)
        assert str(found) == "2 asked"


async def test_who_leaves_takes_nobody_along() -> None:
    go_on = asyncio.Event()

    async def repeat(words: Sequence[str]) -> Sequence[str]:
        await go_on.wait()
        return words

    gathering = Gathering(repeat, 4)
    leaving, staying = asyncio.create_task(gathering.ask("a")), asyncio.create_task(gathering.ask("b"))
    await asyncio.sleep(0.01)
    leaving.cancel()
    go_on.set()
    assert await staying == "b"
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_who_asked_does_not_wait_for_an_answer_that_was_cancelled() -> None:
    async def leave(numbers: Sequence[int]) -> list[int]:
        raise asyncio.CancelledError  # as a call does whose channel is closed

    asking = asyncio.ensure_future(Gathering(leave, 4).ask(1))
    await asyncio.wait({asking}, timeout=5)
    assert asking.cancelled()
