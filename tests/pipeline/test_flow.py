"""A stream of documents between the stages: nobody waits for news that has come already."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from encoder.errors import InvalidInput, Unavailable
from ingest.chunking import Chunk
from ingest.flow import ITEMS_MAX, Flow, Stages
from ingest.index.interface import DocumentKey
from ingest.read_ahead import GROUP_ITEMS_MAX, Item, reading_ahead
from ingest.receipts import LoadError
from ingest.slots import Batch, Batcher, Slot


async def _nothing(_: Batch[Slot]) -> None:
    """Write nothing: no document has a chunk."""


async def _settle(_: Sequence[Slot]) -> None:
    """Settle at once, as where all documents have their receipts."""


async def _hold(group: Sequence[Item], _: Callable[[], Awaitable[None]]) -> list[Slot]:
    return [Slot(DocumentKey("", item.document_id), "") for item in group]


def _let_go(_: Sequence[Slot]) -> None:
    """Nothing was held."""


async def test_room_that_is_made_while_the_last_group_is_prepared_is_seen() -> None:
    count = ITEMS_MAX + 2 * GROUP_ITEMS_MAX
    reached, go_on = asyncio.Event(), asyncio.Event()
    prepared = 0

    async def prepare(slots: Sequence[Slot]) -> None:
        nonlocal prepared
        prepared += len(slots)
        if prepared > ITEMS_MAX:  # by now all before is settled, and nobody has taken it
            reached.set()
            await go_on.wait()

    items = [LoadError("", InvalidInput("text", "bad"), str(number)) for number in range(count)]
    async with asyncio.timeout(10), reading_ahead(items) as ahead:
        flow = Flow(ahead, Batcher(1, 1, whole_documents=False), Stages(_hold, prepare, _nothing, _settle, _let_go))
        try:
            await reached.wait()
            await asyncio.sleep(0.1)
            found = await flow.settled()
            asyncio.get_running_loop().call_later(0.1, go_on.set)
            while more := await flow.settled():
                found += more
        finally:
            await flow.close()
    assert len(found) == count


@pytest.mark.parametrize("stage", ["prepare", "write", "settle"])
async def test_a_call_that_is_cancelled_from_below_ends_the_stream(stage: str) -> None:
    """A connection that is closed under a call cancels it: that is no end of the stream, and none to wait for."""

    async def leave(_: object) -> None:
        raise asyncio.CancelledError

    async def prepare(slots: Sequence[Slot]) -> None:
        for slot in slots:
            slot.chunks, slot.outstanding = [Chunk(0, 0, 1, 1, "a", 1, 1, ())], 1

    stages = Stages(_hold, prepare, _nothing, _settle, _let_go)
    if stage == "settle":
        stages = replace(stages, prepare=_settle)
    stages = replace(stages, **{stage: leave})  # type: ignore[arg-type]
    items = [LoadError("", InvalidInput("text", "bad"), "1")]
    async with reading_ahead(items) as ahead:
        flow = Flow(ahead, Batcher(1, 1, whole_documents=False), stages)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(Unavailable):
                    await flow.settled()
        finally:
            await flow.close()


async def test_documents_are_let_go_of_also_where_the_end_is_cut_short() -> None:
    let_go: list[Slot] = []
    writing = asyncio.Event()

    async def prepare(slots: Sequence[Slot]) -> None:
        slots[0].chunks, slots[0].outstanding = [Chunk(0, 0, 1, 1, "a", 1, 1, ())], 1

    async def write(_: Batch[Slot]) -> None:
        writing.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # as where a call is taken back

    items = [LoadError("", InvalidInput("text", "bad"), "1")]
    async with reading_ahead(items) as ahead:
        flow = Flow(
            ahead,
            Batcher(1, 1, whole_documents=False),
            Stages(_hold, prepare, write, _settle, let_go.extend),
        )
        await writing.wait()
        closing = asyncio.create_task(flow.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
    assert [slot.key.document_id for slot in let_go] == ["1"]
