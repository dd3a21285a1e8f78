"""Documents into the index: twice changes nothing, updates leave nothing behind, failures stay with their document."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from encoder.errors import (
    CheckpointError,
    EncoderUnavailable,
    FingerprintMismatch,
    IndexUnavailable,
    InvalidInput,
    Overloaded,
    StorageFull,
)
from encoder.interface import Encoded
from ingest import read_ahead
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import LoadError, Outcome, Receipt
from tests.fakes import FakeEncoder
from tests.pipelining import (
    DIMENSION,
    MoodyEncoder,
    MoodyIndex,
    clear,
    collect,
    contents,
    fingerprint,
    ingest,
    key,
    make_chunker,
    make_document,
    records_of,
    words_found,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


async def test_a_document_is_found_as_it_was_given(ingestor: Ingestor, index: MoodyIndex) -> None:
    document = make_document("a")
    receipt = await ingestor.ingest(document)
    assert receipt.outcome is Outcome.INGESTED
    assert (receipt.document_id, receipt.source, receipt.generation) == ("a", "a.txt", 1)
    record = (await records_of(index, "a"))["a"]
    assert (record.title, record.source, record.char_count) == ("About a", "a.txt", len(document.text))
    assert (record.chunk_count, record.token_count) == (receipt.chunk_count, receipt.token_count)
    assert record.content_hash == document.content_hash()
    chunks = await index.get_chunks(key("a"), 1, 0, 100)
    assert len(chunks) == receipt.chunk_count > 2
    assert sum(chunk.token_count for chunk in chunks) == receipt.token_count
    for chunk in chunks:
        assert chunk.text == document.text[chunk.char_start : chunk.char_end]
    assert await words_found(index, "number3") == [chunk.text for chunk in chunks if "number3" in chunk.text]
    assert len(await words_found(index, "about")) == len(chunks)  # a word of the title


async def test_twice_changes_nothing(ingestor: Ingestor, index: MoodyIndex, encoder: MoodyEncoder) -> None:
    documents = [make_document(name) for name in "abc"]
    first = await ingest(ingestor, documents)
    records = await records_of(index, *"abc")
    stats = await index.stats()
    encoder.batches.clear()
    second = await ingest(ingestor, documents)
    assert [receipt.outcome for receipt in second] == [Outcome.UNCHANGED] * 3
    for before, after in zip(first, second, strict=True):
        assert (before.chunk_count, before.token_count, before.generation) == (
            after.chunk_count,
            after.token_count,
            after.generation,
        )
    assert await records_of(index, *"abc") == records
    assert await index.stats() == stats
    assert encoder.batches == []


async def test_a_stream_into_the_embedded_engine(encoder: MoodyEncoder, journal: Journal, tmp_path: Path) -> None:
    documents = [make_document(f"d{number}", number % 30 + 1) for number in range(150)]
    for version, outcome in enumerate(("ingested", "unchanged", "ingested"), start=1):
        index = await EmbeddedIndex.open(tmp_path, dimension=DIMENSION, fingerprint=fingerprint())
        if version == 3:
            documents = [make_document(document.document_id, 2, "changed") for document in documents]
        receipts = await ingest(Ingestor(encoder, index, make_chunker(), journal), documents)
        assert [receipt.document_id for receipt in receipts] == [document.document_id for document in documents]
        assert {receipt.outcome.value for receipt in receipts} == {outcome}
        await clear(index, journal)
        stats = await index.stats()
        assert stats.document_count == len(documents)
        assert stats.chunk_count == sum(receipt.chunk_count for receipt in receipts)
        await index.close()


async def test_an_update_replaces_all_even_when_it_shrinks(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    await ingestor.ingest(make_document("a", 30, "old"))
    receipt = await ingestor.ingest(make_document("a", 2, "new"))
    assert (receipt.outcome, receipt.generation) == (Outcome.INGESTED, 2)
    assert await contents(index, "a") == {"a": (2, receipt.chunk_count, receipt.chunk_count)}
    await clear(index, journal)
    assert (await index.stats()).chunk_count == receipt.chunk_count
    assert await words_found(index, "old") == []
    again = await ingestor.ingest(make_document("a", 30, "old"))  # back to what it was
    assert (again.outcome, again.generation) == (Outcome.INGESTED, 3)
    await clear(index, journal)
    assert (await index.stats()).chunk_count == again.chunk_count


async def test_a_changed_title_is_a_new_version(ingestor: Ingestor) -> None:
    for title in ("", "T", "U"):
        assert (await ingestor.ingest(Document("a", "Text.", title=title))).outcome is Outcome.INGESTED


async def test_changed_metadata_are_written_without_encoding(
    ingestor: Ingestor, index: MoodyIndex, encoder: MoodyEncoder
) -> None:
    first = await ingestor.ingest(Document("a", "Text.", metadata={"year": 2024}))
    encoder.batches.clear()
    for changed in (
        Document("a", "Text.", metadata={"year": 2025}),
        Document("a", "Text.", metadata={"year": 2025}, source="S"),
    ):
        receipt = await ingestor.ingest(changed)
        assert (receipt.outcome, receipt.generation) == (Outcome.UPDATED, first.generation)
        record = (await records_of(index, "a"))["a"]
        assert (record.metadata, record.source) == (changed.metadata, changed.source)
        assert (await ingestor.ingest(changed)).outcome is Outcome.UNCHANGED
    assert encoder.batches == []


async def test_a_document_gives_way_to_another_version_than_it_is_to_replace(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal, encoder: MoodyEncoder
) -> None:
    first = dataclasses.replace(make_document("a"), in_place_of=0)
    assert (await ingestor.ingest(first)).outcome is Outcome.INGESTED
    assert (await ingestor.ingest(first)).outcome is Outcome.UNCHANGED
    again = dataclasses.replace(make_document("a", 9), in_place_of=1)
    assert (await ingestor.ingest(again)).generation == 2
    encoder.batches.clear()
    for late in (
        dataclasses.replace(first, metadata={"n": 1}),
        dataclasses.replace(make_document("a", 3), in_place_of=1),
    ):
        receipt = await ingestor.ingest(late)
        assert (receipt.outcome, receipt.generation) == (Outcome.SUPERSEDED, 2)
    gone = await ingestor.ingest(dataclasses.replace(make_document("b"), in_place_of=7))
    assert (gone.outcome, gone.generation) == (Outcome.SUPERSEDED, 0)
    assert encoder.batches == []
    assert await contents(index, "a", "b") == {"a": (2, receipt.chunk_count, receipt.chunk_count)}


async def test_a_document_gives_way_to_what_came_while_it_was_written(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal, encoder: MoodyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingestor.ingest(make_document("a"))
    (earlier,) = (await journal.begin([key("a")], {})).values()  # of another writer
    encode = encoder.encode_passages

    async def overtaken(passages: Sequence[str]) -> Encoded:
        (record,) = (await records_of(index, "a")).values()
        assert await index.commit_record(dataclasses.replace(record, generation=earlier))
        return await encode(passages)

    monkeypatch.setattr(encoder, "encode_passages", overtaken)
    receipt = await ingestor.ingest(dataclasses.replace(make_document("a", 9), in_place_of=1))
    assert (receipt.outcome, receipt.generation) == (Outcome.SUPERSEDED, earlier)
    assert await index.count_chunks(key("a"), earlier + 1) == 0
    assert [attempt.generation for attempt in journal._held] == [earlier]


async def test_two_versions_in_one_stream_are_taken_in_order(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    versions = [make_document("a", size, f"v{size}") for size in (9, 3, 5)]
    receipts = await ingest(ingestor, [versions[0], make_document("b"), *versions[1:]])
    assert [(receipt.document_id, receipt.generation) for receipt in receipts] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("a", 3),
    ]
    assert (await records_of(index, "a"))["a"].content_hash == versions[2].content_hash()
    await clear(index, journal)
    assert (await index.stats()).chunk_count == receipts[1].chunk_count + receipts[3].chunk_count


BAD: list[tuple[Document | LoadError, str]] = [
    (Document("", "text"), "document_id"),
    (Document("x\n", "text"), "document_id"),
    (Document("x" * 513, "text"), "document_id"),
    (Document("bad", " \n "), "text"),
    (Document("bad", "\x00\x01"), "text"),
    (Document("bad", "half \ud800 pair"), "text"),
    (Document("half \ud800 pair", "text"), "document_id"),
    (Document("bad", "text", title="t" * 2049), "title"),
    (Document("bad", "text", source="s" * 4097), "source"),
    (make_document("bad", 40, "poison"), "text"),
    (Document("worse", "fine. " * 40 + "poison. " + "fine. " * 40), "text"),
    (LoadError("file.txt", InvalidInput("paths", "file.txt cannot be read.")), "paths"),
]


async def test_bad_documents_among_good_ones_fail_alone(ingestor: Ingestor, index: MoodyIndex) -> None:
    good = [make_document(f"good{number}", 3 * number + 1) for number in range(len(BAD))]
    items = [item for document, (bad, _) in zip(good, BAD, strict=True) for item in (document, bad)]
    receipts = await ingest(ingestor, items)
    for document, receipt in zip(good, receipts[::2], strict=True):
        assert (receipt.document_id, receipt.outcome) == (document.document_id, Outcome.INGESTED)
        assert await contents(index, document.document_id) == {
            document.document_id: (1, receipt.chunk_count, receipt.chunk_count)
        }
    for (bad, field), receipt in zip(BAD, receipts[1::2], strict=True):
        assert receipt.outcome is Outcome.REJECTED
        assert isinstance(receipt.error, InvalidInput)
        assert (receipt.field, receipt.source, receipt.generation) == (field, bad.source, 0)
    stats = await index.stats()
    assert stats.document_count == len(good)
    assert stats.chunk_count == sum(receipt.chunk_count for receipt in receipts)


async def test_a_refused_update_leaves_the_old_version(ingestor: Ingestor, index: MoodyIndex, journal: Journal) -> None:
    receipt = await ingestor.ingest(make_document("a"))
    with pytest.raises(InvalidInput, match="poisoned"):
        await ingestor.ingest(make_document("a", 50, "poison"))
    assert await contents(index, "a") == {"a": (1, receipt.chunk_count, receipt.chunk_count)}
    assert (await index.stats()).chunk_count == receipt.chunk_count


async def test_what_is_away_is_tried_again(ingestor: Ingestor, index: MoodyIndex, encoder: MoodyEncoder) -> None:
    encoder.failures = [EncoderUnavailable("away"), Overloaded("full", 0.01)]
    index.failures = [IndexUnavailable("away")]
    assert (await ingestor.ingest(make_document("a"))).outcome is Outcome.INGESTED
    assert ingestor.progress.retries == 3


@pytest.mark.parametrize("part", ["encoder", "index"])
async def test_an_outage_is_raised_and_nothing_half_done_is_visible(
    index: MoodyIndex, encoder: MoodyEncoder, journal: Journal, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestor = Ingestor(encoder, index, make_chunker(), journal, batch_tokens_max=64, retry_delays_s=(0, 0, 0))
    monkeypatch.setattr(read_ahead, "GROUP_ITEMS_MAX", 2)
    documents = [make_document(name, 40) for name in "abcd"]
    finished = (await ingest(ingestor, documents[:1]))[0].chunk_count
    receipts: list[Receipt] = []

    async def source() -> AsyncIterator[Document]:
        for document in documents:
            if document.document_id == "c":
                while len(receipts) < 2:  # noqa: ASYNC110 - a and b come first
                    await asyncio.sleep(0.01)
                encoder.failures = [None, None] + [EncoderUnavailable("gone")] * 100 if part == "encoder" else []
                index.failures = [StorageFull("full")] if part == "index" else []
            yield document

    with pytest.raises(EncoderUnavailable if part == "encoder" else StorageFull):
        await collect(ingestor.ingest_all(source()), receipts)
    assert [receipt.document_id for receipt in receipts] == ["a", "b"]
    assert set(await records_of(index, *"abcd")) == {"a", "b"}

    encoder.failures, index.failures = [], []
    receipts = await ingest(ingestor, documents)
    assert [receipt.outcome.value for receipt in receipts] == ["unchanged", "unchanged", "ingested", "ingested"]
    await clear(index, journal)
    assert (await index.stats()).chunk_count == sum(receipt.chunk_count for receipt in receipts)
    assert receipts[0].chunk_count == finished


async def test_leftovers_of_a_crash_never_enter_a_later_version(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object, **__: object) -> None:
        raise StorageFull("crashed")

    await ingestor.ingest(make_document("a", 4))
    with monkeypatch.context() as patched:
        patched.setattr(index, "commit_record", crash)
        with pytest.raises(StorageFull):
            await ingestor.ingest(make_document("a", 40, "crashed"))
    assert (await index.stats()).chunk_count > 20
    receipt = await ingestor.ingest(make_document("a", 3, "after"))
    assert receipt.generation == 3
    assert await contents(index, "a") == {"a": (3, receipt.chunk_count, receipt.chunk_count)}
    cleared = await clear(index, journal)
    assert cleared.attempts == 1
    assert (await index.stats()).chunk_count == receipt.chunk_count
    assert await words_found(index, "crashed") == []


async def test_lost_chunks_are_noticed_before_the_commit(
    ingestor: Ingestor, index: MoodyIndex, journal: Journal
) -> None:
    index.forgetful = True
    (receipt,) = await ingest(ingestor, [make_document("a")])
    assert receipt.outcome is Outcome.REJECTED
    assert "a: 5 of 6 chunks of it are in the index; ingest it again" in str(receipt.error)
    assert (await index.stats()).chunk_count == (await index.stats()).document_count == 0
    index.forgetful = False
    assert (await ingestor.ingest(make_document("a"))).outcome is Outcome.INGESTED


async def test_an_unchanged_document_whose_chunks_are_gone_is_written_again(
    ingestor: Ingestor, index: MoodyIndex
) -> None:
    first = await ingestor.ingest(make_document("a"))
    await index.delete_chunks(key("a"), below=9)
    second = await ingestor.ingest(make_document("a"))
    assert (second.outcome, second.generation) == (Outcome.INGESTED, 2)
    assert await contents(index, "a") == {"a": (2, first.chunk_count, first.chunk_count)}


async def test_batches_join_documents_and_are_bounded(
    encoder: MoodyEncoder, index: MoodyIndex, journal: Journal
) -> None:
    ingestor = Ingestor(encoder, index, make_chunker(), journal, batch_tokens_max=100)
    encoder._info = dataclasses.replace(encoder._info, batch_size_max=5)
    await ingest(ingestor, [make_document(f"d{number}", 2) for number in range(20)])
    assert max(len(batch) for batch in encoder.batches) == 5
    assert any(len({passage.split("\n")[0] for passage in batch}) > 1 for batch in encoder.batches)
    encoder.batches.clear()
    await ingest(ingestor, [make_document("long", 200)])
    assert max(len(batch) for batch in encoder.batches) == 5


async def test_another_encoder_than_the_indexs_is_refused(index: MoodyIndex, journal: Journal) -> None:
    other = FakeEncoder(dimension=DIMENSION, fingerprint="other")
    with pytest.raises(FingerprintMismatch, match=r"model=fake .*model=other "):
        await Ingestor(other, index, make_chunker(), journal).ingest(make_document("a"))


async def test_an_encoder_that_reads_too_little_is_refused(
    index: MoodyIndex, encoder: MoodyEncoder, journal: Journal
) -> None:
    encoder._info = dataclasses.replace(encoder._info, passage_tokens_max=80)
    with pytest.raises(CheckpointError, match=r"up to 80 tokens.*up to 81"):
        await Ingestor(encoder, index, make_chunker(), journal).ingest(make_document("a"))


async def test_what_a_failed_newer_attempt_fenced_is_not_superseded(
    ingestor: Ingestor, index: MoodyIndex, encoder: MoodyEncoder
) -> None:
    """Another worker's newer version came to nothing, and was cleared away: what is visible is older than this one."""
    await ingestor.ingest(make_document("a"))
    encode = encoder.encode_passages

    async def encode_while_others_fail(passages: Sequence[str]) -> Encoded:
        await index.fence(key("a"), 9)
        return await encode(passages)

    encoder.encode_passages = encode_while_others_fail  # type: ignore[method-assign]
    with pytest.raises(IndexUnavailable, match="again"):
        await ingestor.ingest(make_document("a", 7))
    assert (await ingestor.ingest(make_document("a", 7))).generation == 10
