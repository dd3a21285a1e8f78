"""Documents that grow: only what is new is written, what was there stays as it is, and all else is as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from encoder.errors import IndexUnavailable, StorageFull
from ingest import growing
from ingest.collecting import Collector
from ingest.documents import Document
from ingest.index.interface import DocumentRecord, IndexedChunk, Segment, StoredChunk
from ingest.journal import Attempt, Journal
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from ingest.sparse import sparse_passage
from tests.pipelining import (
    DIMENSION,
    Clock,
    MoodyEncoder,
    MoodyIndex,
    clear,
    key,
    make_chunker,
    records_of,
    words_found,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


def log(first: int, last: int, **changes: object) -> Document:
    """A log of some entries."""
    text = "".join(f"# Day {number}\n\nThe entry number{number} of the log.\n" for number in range(first, last))
    return replace(Document("log", text, title="A log", growing=True), **changes)  # type: ignore[arg-type]


async def record_of(index: MoodyIndex) -> DocumentRecord:
    return (await records_of(index, "log"))["log"]


async def chunks_of(index: MoodyIndex) -> list[StoredChunk]:
    """All chunks that the record lists, in order."""
    record = await record_of(index)
    found = []
    for segment in record.segments:
        last = segment.first_chunk + segment.chunk_count - 1
        part = await index.get_chunks(key("log"), segment.generation, segment.first_chunk, last)
        assert len(part) == segment.chunk_count
        found += part
    return found


async def check(index: MoodyIndex, document: Document) -> None:
    """The chunks are numbered through, and each is where it says, with its lines and its heading."""
    chunks = await chunks_of(index)
    assert [chunk.chunk_index for chunk in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert chunk.text == document.text[chunk.char_start : chunk.char_end]
        assert chunk.line_start == 1 + document.text.count("\n", 0, chunk.char_start)
        assert chunk.line_end == 1 + document.text.count("\n", 0, chunk.char_end)
    assert " ".join(chunk.text for chunk in chunks).split() == document.text.split()
    record = await record_of(index)
    assert record.token_count == sum(chunk.token_count for chunk in chunks)
    assert (record.content_hash, record.char_count) == (document.content_hash(), len(document.text))


async def test_only_what_is_new_is_written(
    ingestor: Ingestor, index: MoodyIndex, encoder: MoodyEncoder, journal: Journal
) -> None:
    first = await ingestor.ingest(log(0, 9))
    before = await chunks_of(index)
    encoder.batches.clear()
    second = await ingestor.ingest(log(0, 11))
    assert (second.outcome, second.generation) == (Outcome.INGESTED, 2)
    added = (await chunks_of(index))[len(before) :]
    assert (await chunks_of(index))[: len(before)] == before
    assert [passage for batch in encoder.batches for passage in batch] == [f"A log\n{chunk.text}" for chunk in added]
    assert {chunk.generation for chunk in added} == {2}
    assert added[-1].headings == ("Day 10",)
    assert (await record_of(index)).segments == (
        Segment(1, 0, first.chunk_count),
        Segment(2, first.chunk_count, second.chunk_count - first.chunk_count),
    )
    await check(index, log(0, 11))
    await clear(index, journal)
    await check(index, log(0, 11))
    assert (await index.stats()).chunk_count == second.chunk_count
    assert (await ingestor.ingest(log(0, 11))).outcome is Outcome.UNCHANGED


async def test_a_heading_above_holds_for_what_follows(ingestor: Ingestor, index: MoodyIndex) -> None:
    whole = log(0, 3)
    text = whole.text + "A last word, and then another one, which is still of that day.\n"
    await ingestor.ingest(whole)
    await ingestor.ingest(replace(whole, text=text))
    last = (await chunks_of(index))[-1]
    assert last.generation == 2
    assert last.headings == ("Day 2",)


CHANGED: dict[str, Callable[[Document], Document]] = {
    "not said to grow": lambda document: replace(document, growing=False),
    "another title": lambda document: replace(document, title="Another log"),
    "another beginning": lambda document: replace(document, text="X" + document.text[1:]),
    "shorter": lambda document: replace(document, text=log(0, 4).text),
    "source code": lambda document: replace(document, metadata={"language": "python"}),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
async def test_any_other_version_replaces_all(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal, change: Callable[[Document], Document]
) -> None:
    before = change(log(0, 9)) if change is CHANGED["source code"] else log(0, 9)
    await ingestor.ingest(before)
    second = change(log(0, 11))
    receipt = await ingestor.ingest(second)
    assert (await record_of(index)).segments == (Segment(2, 0, receipt.chunk_count),)
    await check(index, second)
    await clear(index, journal)
    assert (await index.stats()).chunk_count == receipt.chunk_count


async def test_a_grown_document_is_replaced_and_deleted_whole(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    for last in (3, 5, 7):
        await ingestor.ingest(log(0, last))
    receipt = await ingestor.ingest(log(20, 22))
    assert (receipt.generation, (await record_of(index)).segments) == (4, (Segment(4, 0, receipt.chunk_count),))
    await clear(index, journal)
    assert (await index.stats()).chunk_count == receipt.chunk_count
    grown = await ingestor.ingest(log(20, 25))
    assert await ingestor.delete("log") == grown.chunk_count
    await clear(index, journal)
    assert (await index.stats()).chunk_count == 0
    again = await ingestor.ingest(log(20, 26))
    assert len((await record_of(index)).segments) == 1
    await clear(index, journal)
    assert (await index.stats()).chunk_count == again.chunk_count


async def test_metadata_may_change_as_it_grows_or_afterwards(ingestor: Ingestor, index: MoodyIndex) -> None:
    await ingestor.ingest(log(0, 3, metadata={"year": 2024}))
    await ingestor.ingest(log(0, 4, metadata={"year": 2025}, source="s"))
    record = await record_of(index)
    assert (record.metadata, record.source, record.generations) == ({"year": 2025}, "s", (1, 2))
    receipt = await ingestor.ingest(log(0, 4, metadata={"year": 2026}))
    assert (receipt.outcome, receipt.generation) == (Outcome.UPDATED, 2)
    record = await record_of(index)
    assert (record.metadata, record.generations) == ({"year": 2026}, (1, 2))
    await ingestor.ingest(log(0, 5, metadata={"year": 2026}))
    assert (await record_of(index)).generations == (1, 2, 3)
    await check(index, log(0, 5))


async def test_blanks_make_no_chunk(ingestor: Ingestor, index: MoodyIndex, encoder: MoodyEncoder) -> None:
    await ingestor.ingest(log(0, 3))
    encoder.batches.clear()
    blank = log(0, 3, text=log(0, 3).text + "\n \n", metadata={"year": 1})
    assert (await ingestor.ingest(blank)).outcome is Outcome.UPDATED
    assert encoder.batches == []
    assert (await record_of(index)).metadata == {"year": 1}
    await check(index, blank)
    assert (await ingestor.ingest(blank)).outcome is Outcome.UNCHANGED
    more = replace(blank, text=blank.text + "The entry after it.")
    assert (await ingestor.ingest(more)).generation == 2
    await check(index, more)


async def test_a_document_of_many_segments_is_written_whole(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "SEGMENTS_MAX", 4)
    counts = []
    for last in range(1, 9):
        receipt = await ingestor.ingest(log(0, last))
        counts.append(len((await record_of(index)).segments))
        await check(index, log(0, last))
    assert counts == [1, 2, 3, 4, 1, 2, 3, 4]
    await clear(index, journal)
    assert (await index.stats()).chunk_count == receipt.chunk_count
    await check(index, log(0, 8))


async def test_what_lacks_a_chunk_is_written_whole(ingestor: Ingestor, index: MoodyIndex) -> None:
    for last in (3, 5):
        await ingestor.ingest(log(0, last))
    await index.delete_chunks(key("log"), generation=1)
    receipt = await ingestor.ingest(log(0, 7))
    assert (await record_of(index)).segments == (Segment(3, 0, receipt.chunk_count),)
    await index.delete_chunks(key("log"), generation=3)
    assert (await ingestor.ingest(log(0, 7))).outcome is Outcome.INGESTED
    await check(index, log(0, 7))


STEPS = ["begin", "upsert_chunks", "count_chunks", "commit_record", "flush", "finish"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_step_costs_nothing_but_the_step(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal, monkeypatch: pytest.MonkeyPatch, step: str, done: bool
) -> None:
    await ingestor.ingest(log(0, 5))
    part = journal if hasattr(journal, step) else index
    real = getattr(part, step)
    calls = 0

    async def crash(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if step == "count_chunks" and calls == 1:  # that of the old version
            return await real(*arguments, **named)
        if done:
            await real(*arguments, **named)
        raise StorageFull("crashed")

    with monkeypatch.context() as patched:
        patched.setattr(part, step, crash)
        with pytest.raises(StorageFull):
            await ingestor.ingest(log(0, 7))
    journal.let_go(list(journal._held))  # what a process that is gone does not go on with
    committed = STEPS.index(step) > STEPS.index("commit_record") or (step == "commit_record" and done)
    await check(index, log(0, 7 if committed else 5))
    old = (await chunks_of(index))[:5]
    receipt = await ingestor.ingest(log(0, 9))
    assert len((await record_of(index)).segments) == (3 if committed else 2)
    await check(index, log(0, 9))
    for _ in range(2):
        await clear(index, journal)
    assert (await chunks_of(index))[:5] == old
    await check(index, log(0, 9))
    assert (await index.stats()).chunk_count == receipt.chunk_count
    assert await journal.under_way([key("log")]) == set()


async def test_what_grew_from_a_replaced_version_is_refused(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker replaces the document between the comparison and the commit."""
    await ingestor.ingest(log(0, 5))
    write = index.upsert_chunks

    async def replaced(chunks: object) -> None:
        monkeypatch.setattr(index, "upsert_chunks", write)
        other = Ingestor(MoodyEncoder(), index, make_chunker(), journal, retry_delays_s=())
        assert (await other.ingest(log(40, 42, growing=False))).generation == 3
        await write(chunks)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "upsert_chunks", replaced)
    receipt = await ingestor.ingest(log(0, 7))
    assert (receipt.outcome, receipt.generation) == (Outcome.SUPERSEDED, 3)
    await check(index, log(40, 42))
    await clear(index, journal)
    await check(index, log(40, 42))
    assert (await index.stats()).chunk_count == (await record_of(index)).chunk_count


async def test_a_version_under_way_that_comes_first_is_told(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    """An older attempt, which was taken for dead, is committed while the document grows."""
    await ingestor.ingest(log(0, 5))
    record = await record_of(index)
    await journal.begin([key("log")], {})
    read = index.get_records

    async def late(keys: object) -> object:
        found = await read(keys)  # type: ignore[arg-type]
        index.get_records = read  # type: ignore[method-assign]
        assert await index.commit_record(replace(record, generation=2, chunk_count=0, content_hash="other"))
        return found

    index.get_records = late  # type: ignore[method-assign,assignment]
    with pytest.raises(IndexUnavailable, match=r"log: it was taken over while it was being written; ingest it again"):
        await ingestor.ingest(log(0, 7))
    await ingestor.ingest(log(0, 7))
    await clear(index, journal)
    await check(index, log(0, 7))
    assert (await index.stats()).chunk_count == (await record_of(index)).chunk_count


async def test_a_write_that_comes_after_all_was_settled_is_cleared_away(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    for known in (False, True):
        if known:
            await ingestor.ingest(log(0, 5))
        generation = (await journal.begin([key("log")], {}))[key("log")]
        journal.let_go([Attempt(key("log"), generation)])
        stale = StoredChunk("default", "log", generation, 0, 0, 4, 1, 1, (), 1, "late lantern")
        cleared = await clear(index, journal)
        assert cleared.attempts == 1
        generation = (await journal.begin([key("log")], {}))[key("log")]
        journal.let_go([Attempt(key("log"), generation)])
        await _settle(index, journal)
        await index.upsert_chunks([_indexed(replace(stale, generation=generation))])
        assert await words_found(index, "lantern") != []
        await clear(index, journal)
        assert await words_found(index, "lantern") == []
        assert await journal.due(10, within_s=1e9) == []
    await check(index, log(0, 5))


async def test_a_journal_that_is_ahead_of_its_index_costs_no_chunk_of_a_record(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    """The index was restored from a backup: versions that the journal saw committed are not in it."""
    for last in (3, 5):
        await ingestor.ingest(log(0, last))
    await journal.finish([Attempt(key("log"), 9)], 0)
    stale = replace(await record_of(index), generation=7)
    await clear(index, journal)
    await check(index, log(0, 5))
    assert not await index.commit_record(stale)  # its chunks would be gone
    assert (await ingestor.ingest(log(0, 7))).generation > 9 - 1
    await clear(index, journal)
    await check(index, log(0, 7))


async def _settle(index: MoodyIndex, journal: Journal) -> None:
    """Settle what was abandoned, while what is due later stays."""
    clock = journal.now
    assert isinstance(clock, Clock)
    clock.now += 1000
    assert (await Collector(index, journal, 60).collect()).attempts == 1


def _indexed(chunk: StoredChunk) -> IndexedChunk:
    embedding = np.zeros(DIMENSION, dtype=np.float32)
    embedding[0] = 1
    return IndexedChunk(chunk, embedding, sparse_passage(chunk.text))


async def test_many_grow_at_once_and_each_keeps_its_own(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    async def grow(name: str, steps: int) -> None:
        for last in range(1, steps):
            await ingestor.ingest(log(0, last, document_id=name))

    await asyncio.gather(*(grow(f"log{number}", 3 + number) for number in range(5)))
    await clear(index, journal)
    records = await records_of(index, *(f"log{number}" for number in range(5)))
    assert [len(record.segments) for record in records.values()] == [2, 3, 4, 5, 6]
    for record in records.values():
        assert await index.count_chunks(record.key, *record.generations) == record.chunk_count
    assert (await index.stats()).chunk_count == sum(record.chunk_count for record in records.values())


async def test_what_a_grown_document_was_stays_as_long_as_a_search_may_read_it(
    encoder: MoodyEncoder, index: MoodyIndex, journal: Journal
) -> None:
    """It was grown long ago and is replaced now: searches that began before read all of its segments."""
    clock = journal.now
    assert isinstance(clock, Clock)
    ingestor = Ingestor(encoder, index, make_chunker(), journal, collect_after_s=60)
    await ingestor.ingest(log(0, 9))
    await ingestor.ingest(log(0, 11))
    clock.now += 59
    before = await record_of(index)
    await ingestor.ingest(log(5, 9))
    clock.now += 2
    await Collector(index, journal, 60).collect()
    assert await index.count_chunks(before.key, *before.generations) == before.chunk_count
    clock.now += 60
    await Collector(index, journal, 60).collect()
    assert await index.count_chunks(before.key, *before.generations) == 0
