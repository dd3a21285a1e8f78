"""The thread of the embedded engine: searches before writes, and neither starves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ingest.documents import MetadataValue
from ingest.index import turns
from ingest.index.embedded import UPSERT_AT_ONCE, EmbeddedIndex
from ingest.index.engine import Engine
from ingest.index.fields import make_fields
from ingest.index.interface import BATCH_CHUNKS_MAX
from ingest.index.turns import Turns
from tests.indexes import DIMENSION, EVERYWHERE, FINGERPRINT, axis, make_chunk, search_dense


@pytest.fixture
async def thread() -> AsyncIterator[Turns]:
    made = Turns("test")
    yield made
    made.end()


async def blocked(thread: Turns) -> tuple[threading.Event, asyncio.Task[bool]]:
    """Have the thread busy until the event is set, so that calls queue up behind."""
    go, begun = threading.Event(), threading.Event()

    def hold() -> bool:
        begun.set()
        return go.wait(10)

    task = asyncio.create_task(thread.run(hold, search=False))
    await asyncio.to_thread(begun.wait, 10)
    return go, task


async def queue(thread: Turns, order: list[str], names: str) -> list[asyncio.Task[None]]:
    """Queue a call for each letter: ``s`` a search, ``w`` a write."""
    tasks = [
        asyncio.create_task(thread.run(lambda name=name: order.append(name), search=name == "s"))  # type: ignore[misc]
        for name in names
    ]
    await asyncio.sleep(0)
    return tasks


async def test_searches_come_before_writes_that_have_not_begun(thread: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
    go, task = await blocked(thread)
    order: list[str] = []
    tasks = await queue(thread, order, "wwsws")
    go.set()
    await asyncio.gather(task, *tasks)
    assert "".join(order) == "sswww"


async def test_writes_that_have_waited_have_every_other_turn(thread: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.0)
    go, task = await blocked(thread)
    order: list[str] = []
    tasks = await queue(thread, order, "wwsssw")
    time.sleep(0.01)  # noqa: ASYNC251 - the queue is not to move
    go.set()
    await asyncio.gather(task, *tasks)
    assert "".join(order) == "swswsw"


async def test_what_nobody_waits_for_is_left_out_and_errors_are_raised_where_they_belong(thread: Turns) -> None:
    go, task = await blocked(thread)
    order: list[str] = []
    (left,) = await queue(thread, order, "w")
    (kept,) = await queue(thread, order, "s")
    left.cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(task, kept)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await thread.run(fail, search=True)
    assert await thread.run(lambda: 7, search=False) == 7
    assert order == ["s"]
    thread.end()
    with pytest.raises(RuntimeError, match="has ended"):
        await thread.run(lambda: 7, search=False)


async def test_a_search_comes_in_between_the_parts_of_a_batch(tmp_path: Path) -> None:
    index = await EmbeddedIndex.open(tmp_path, dimension=DIMENSION, fingerprint=FINGERPRINT)
    writing = asyncio.create_task(
        index.upsert_chunks([make_chunk("d", number, "word", direction=0) for number in range(BATCH_CHUNKS_MAX)])
    )
    seen = set()
    while not writing.done():
        seen.add(len(await search_dense(index, axis(0), 1000, EVERYWHERE)))
    assert seen & set(range(UPSERT_AT_ONCE, BATCH_CHUNKS_MAX, UPSERT_AT_ONCE))
    await index.close()


async def test_a_search_waits_for_the_indexing_of_one_new_name_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = await EmbeddedIndex.open(tmp_path, dimension=DIMENSION, fingerprint=FINGERPRINT)
    await index.upsert_chunks([make_chunk("d", 0, "word", direction=0)])
    index_ranges, indexed = Engine.index_ranges, []

    def slowly(engine: Engine, names: Iterable[str]) -> None:
        new = engine.new_ranges(names)
        time.sleep(0.1 * len(new))
        indexed.extend(new)
        index_ranges(engine, new)

    monkeypatch.setattr(Engine, "index_ranges", slowly)
    values: dict[str, MetadataValue] = {f"value{number}": number for number in range(6)}
    fields = make_fields("", "", values, datetime.now(UTC))
    writing = asyncio.create_task(
        index.upsert_chunks([replace(make_chunk("d", number, "word"), fields=fields) for number in range(1, 40)])
    )
    seen = set()
    while not writing.done():
        await search_dense(index, axis(0), 10, EVERYWHERE)
        seen.add(len(indexed))
    assert seen >= set(range(1, len(fields.ranges)))
    assert sorted(indexed) == sorted(fields.ranges)
    await index.close()


async def test_searches_go_on_while_the_engine_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = await EmbeddedIndex.open(tmp_path, dimension=DIMENSION, fingerprint=FINGERPRINT)
    await index.upsert_chunks([make_chunk("d", number, "word") for number in range(8)])
    go, copying = threading.Event(), threading.Event()
    copy = index._directory.check_copy

    def wait(folder: Path) -> None:
        copying.set()
        go.wait(10)
        copy(folder)

    monkeypatch.setattr(index._directory, "check_copy", wait)
    optimizing = asyncio.create_task(index.optimize())
    await asyncio.to_thread(copying.wait, 10)
    writing = asyncio.create_task(index.upsert_chunks([make_chunk("e", 0, "word")]))
    assert len(await search_dense(index, axis(0), 100, EVERYWHERE)) == 8
    assert not writing.done()
    go.set()
    await asyncio.gather(writing, optimizing)
    assert len(await search_dense(index, np.ones(DIMENSION, np.float32), 100, EVERYWHERE)) == 9
    await index.close()
