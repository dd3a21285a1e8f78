"""Streams of documents: progress, order, reading ahead, several at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from encoder.errors import (
    NotFound,
)
from ingest import flow, read_ahead
from ingest.documents import Document
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome, Progress, Receipt
from tests.pipelining import (
    MoodyEncoder,
    MoodyIndex,
    clear,
    collect,
    contents,
    ingest,
    key,
    make_chunker,
    make_document,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


async def test_progress_is_told(encoder: MoodyEncoder, index: MoodyIndex, journal: Journal) -> None:
    told: list[Progress] = []
    ingestor = Ingestor(encoder, index, make_chunker(), journal, on_progress=told.append)
    documents = [make_document("a"), Document("bad", ""), make_document("b", 40)]
    receipts = await ingest(ingestor, documents)
    await ingest(ingestor, documents[:1])
    last = told[-1]
    assert (last.documents, last.ingested, last.unchanged, last.rejected) == (4, 2, 1, 1)
    assert last.chunks == sum(receipt.chunk_count for receipt in receipts)
    assert last.tokens == sum(receipt.token_count for receipt in receipts)
    assert (last.chunks_cut, last.chunks_encoded, last.tokens_encoded) == (last.chunks, last.chunks, last.tokens)
    assert last.bytes_cut == last.text_bytes
    assert any(told_then.chunks_cut > told_then.chunks_encoded for told_then in told)
    assert last.text_bytes == 2 * len(documents[0].text) + len(documents[2].text)
    assert all(before.chunks <= after.chunks for before, after in itertools.pairwise(told))


async def test_a_receipt_comes_before_the_next_document_is_given(ingestor: Ingestor) -> None:
    received = asyncio.Event()
    order: list[str] = []

    async def patient() -> AsyncIterator[Document]:
        for name in "abc":
            order.append(f"give {name}")
            received.clear()
            yield make_document(name)
            await asyncio.wait_for(received.wait(), 30)

    async for receipt in ingestor.ingest_all(patient()):
        order.append(f"got {receipt.document_id}")
        received.set()
    assert order == ["give a", "got a", "give b", "got b", "give c", "got c"]


async def test_reading_ahead_is_bounded(ingestor: Ingestor) -> None:
    given = 0

    def endless() -> Iterator[Document]:
        nonlocal given
        while True:
            given += 1
            yield make_document(f"d{given}", 1)

    receipts = ingestor.ingest_all(endless())
    async for receipt in receipts:
        if receipt.document_id == "d3":
            break
    await asyncio.sleep(0.2)
    under_way = flow.SETTLED_AT_ONCE + flow.ITEMS_MAX + read_ahead.GROUP_ITEMS_MAX
    assert given <= 4 + under_way + read_ahead.AHEAD_ITEMS_MAX
    await receipts.aclose()
    stopped = given
    await asyncio.sleep(0.1)
    assert given <= stopped + 1


async def test_who_does_not_take_receipts_holds_up_nobody(ingestor: Ingestor) -> None:
    receipts = ingestor.ingest_all([make_document("a"), make_document("shared"), make_document("c")])
    assert (await anext(receipts)).document_id == "a"  # and then nothing, though more is under way
    async with asyncio.timeout(10):
        newer = await ingestor.ingest(make_document("shared", 9))
    assert newer.outcome is Outcome.INGESTED
    assert [receipt.document_id async for receipt in receipts] == ["shared", "c"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_source_that_breaks_is_raised_after_what_came_before(ingestor: Ingestor, asynchronous: bool) -> None:
    def breaking() -> Iterator[Document]:
        yield make_document("a")
        raise OSError("unplugged")

    async def breaking_too() -> AsyncIterator[Document]:
        for document in breaking():
            yield document

    receipts: list[Receipt] = []
    with pytest.raises(OSError, match="unplugged"):
        await collect(ingestor.ingest_all(breaking_too() if asynchronous else breaking()), receipts)
    assert [receipt.document_id for receipt in receipts] == ["a"]


async def test_streams_that_write_one_document_take_turns(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    async def stream(word: str) -> None:
        for size in range(1, 12):
            await ingestor.ingest(make_document("shared", size, word))
            await ingest(ingestor, [make_document("other", 3, word), make_document("shared", size, f"{word}x")])

    await asyncio.gather(*(stream(word) for word in ("red", "green", "blue")))
    found = await contents(index, "shared", "other")
    assert all(counted == held for _, counted, held in found.values())
    await clear(index, journal)
    assert (await index.stats()).chunk_count == sum(counts[1] for counts in found.values())
    words = {
        word
        for chunk in await index.get_chunks(key("shared"), found["shared"][0], 0, 100)
        for word in chunk.text.split()
    }
    assert len(words & {"redx", "greenx", "bluex"}) == 1


async def test_deleting(ingestor: Ingestor, index: MoodyIndex, journal: Journal) -> None:
    receipt = await ingestor.ingest(make_document("a"))
    assert await ingestor.delete("a") == receipt.chunk_count
    assert await contents(index, "a") == {}
    with pytest.raises(NotFound, match="no document 'a'"):
        await ingestor.delete("a")
    # What stood under an earlier number never comes back under the same one.
    assert (await ingestor.ingest(make_document("a"))).generation == 3
    await clear(index, journal)
    assert (await index.stats()).chunk_count == receipt.chunk_count
    await ingestor.delete("a")
    await clear(index, journal)
    assert (await index.stats()).chunk_count == 0
    assert await index.get_fences([key("a")]) == {}


async def test_nothing_gives_nothing(ingestor: Ingestor) -> None:
    assert await ingest(ingestor, []) == []
