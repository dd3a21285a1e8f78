"""Documents into the index: twice changes nothing, updates leave nothing behind, failures stay with their document."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from encoder.errors import (
    CheckpointError,
    EncoderUnavailable,
    FingerprintMismatch,
    IndexUnavailable,
    InvalidInput,
    MambaSearchError,
    NotFound,
    Overloaded,
    StorageFull,
)
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoded
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest import pipeline, read_ahead
from ingest.chunking import Chunker
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import IndexedChunk, VectorIndex
from ingest.index.server import ServerIndex
from ingest.pipeline import Ingestor
from ingest.receipts import LoadError, Outcome, Progress, Receipt
from ingest.sparse import sparse_query
from tests.fakes import FakeEncoder

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

DIMENSION = 32


class MoodyEncoder(FakeEncoder):
    """Raises what stands in ``failures``, one a call; refuses passages that hold "poison"; remembers its batches."""

    def __init__(self) -> None:
        super().__init__(dimension=DIMENSION)
        self.failures: list[MambaSearchError | None] = []
        self.batches: list[list[str]] = []

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        self.batches.append(list(passages))
        await asyncio.sleep(0)
        failure = self.failures.pop(0) if self.failures else None
        if failure:
            raise failure
        if any("poison" in passage for passage in passages):
            raise InvalidInput("passages[0]", "passages[0] is poisoned.")
        return await super().encode_passages(passages)


class MoodyIndex(ServerIndex):
    """Fails to write while ``failures`` last; forgets the last chunk of each batch while ``forgetful``."""

    failures: list[MambaSearchError]
    forgetful = False

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        await super().upsert_chunks(chunks[:-1] if self.forgetful else chunks)


@functools.cache
def make_chunker() -> Chunker:
    return Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER), tokens_max=16)


@pytest.fixture
def encoder() -> MoodyEncoder:
    return MoodyEncoder()


def fingerprint() -> str:
    return index_fingerprint("fake", make_chunker().fingerprint)


@pytest.fixture
async def index() -> AsyncIterator[MoodyIndex]:
    client = AsyncQdrantClient(location=":memory:")  # opens in no time
    opened = await MoodyIndex.open(client, collection="c", dimension=DIMENSION, fingerprint=fingerprint())
    opened.failures = []
    yield opened
    await opened.close()


@pytest.fixture
def ingestor(encoder: MoodyEncoder, index: MoodyIndex) -> Ingestor:
    return Ingestor(encoder, index, make_chunker(), retry_delays_s=(0, 0, 0))


def make_document(document_id: str, sentences: int = 6, word: str = "word") -> Document:
    text = " ".join(f"The {word} number{number} of {document_id} stands here." for number in range(sentences))
    return Document(document_id, text, title=f"About {document_id}", source=f"{document_id}.txt")


async def ingest(ingestor: Ingestor, items: Iterable[Document | LoadError]) -> list[Receipt]:
    return [receipt async for receipt in ingestor.ingest_all(items)]


async def collect(receipts: AsyncIterator[Receipt], into: list[Receipt]) -> None:
    """Keep what comes, also where an error ends it."""
    async for receipt in receipts:
        into.append(receipt)  # noqa: PERF401 - an error must not take those before it along


async def contents(index: VectorIndex, *document_ids: str) -> dict[str, tuple[int, int, int]]:
    """Of each document: its generation, the chunks its record names, and those that are there."""
    records = await index.get_records(document_ids)
    return {
        name: (record.generation, record.chunk_count, await index.count_chunks(name, record.generation))
        for name, record in records.items()
    }


async def test_a_document_is_found_as_it_was_given(ingestor: Ingestor, index: MoodyIndex) -> None:
    document = make_document("a")
    receipt = await ingestor.ingest(document)
    assert receipt.outcome is Outcome.INGESTED
    assert (receipt.document_id, receipt.source, receipt.generation) == ("a", "a.txt", 1)
    record = (await index.get_records(["a"]))["a"]
    assert (record.title, record.source, record.char_count) == ("About a", "a.txt", len(document.text))
    assert (record.chunk_count, record.token_count) == (receipt.chunk_count, receipt.token_count)
    assert record.content_hash == document.content_hash()
    chunks = await index.get_chunks("a", 1, 0, 100)
    assert len(chunks) == receipt.chunk_count > 2
    assert sum(chunk.token_count for chunk in chunks) == receipt.token_count
    for chunk in chunks:
        assert chunk.text == document.text[chunk.char_start : chunk.char_end]
    hits = await index.search_sparse(sparse_query("number3"), 10)
    assert [hit.chunk.text for hit in hits] == [chunk.text for chunk in chunks if "number3" in chunk.text]
    hits = await index.search_sparse(sparse_query("about"), 10)  # a word of the title
    assert len(hits) == len(chunks)


async def test_twice_changes_nothing(ingestor: Ingestor, index: MoodyIndex, encoder: MoodyEncoder) -> None:
    documents = [make_document(name) for name in "abc"]
    first = await ingest(ingestor, documents)
    records = await index.get_records("abc")
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
    assert await index.get_records("abc") == records
    assert await index.stats() == stats
    assert encoder.batches == []


async def test_a_stream_into_the_embedded_engine(encoder: MoodyEncoder, tmp_path: Path) -> None:
    documents = [make_document(f"d{number}", number % 30 + 1) for number in range(150)]
    for version, outcome in enumerate(("ingested", "unchanged", "ingested"), start=1):
        index = await EmbeddedIndex.open(tmp_path, dimension=DIMENSION, fingerprint=fingerprint())
        if version == 3:
            documents = [make_document(document.document_id, 2, "changed") for document in documents]
        receipts = await ingest(Ingestor(encoder, index, make_chunker()), documents)
        assert [receipt.document_id for receipt in receipts] == [document.document_id for document in documents]
        assert {receipt.outcome.value for receipt in receipts} == {outcome}
        stats = await index.stats()
        assert stats.document_count == len(documents)
        assert stats.chunk_count == sum(receipt.chunk_count for receipt in receipts)
        await index.close()


async def test_an_update_replaces_all_even_when_it_shrinks(ingestor: Ingestor, index: MoodyIndex) -> None:
    await ingestor.ingest(make_document("a", 30, "old"))
    receipt = await ingestor.ingest(make_document("a", 2, "new"))
    assert (receipt.outcome, receipt.generation) == (Outcome.INGESTED, 2)
    assert await contents(index, "a") == {"a": (2, receipt.chunk_count, receipt.chunk_count)}
    assert (await index.stats()).chunk_count == receipt.chunk_count
    assert await index.search_sparse(sparse_query("old"), 5) == []
    again = await ingestor.ingest(make_document("a", 30, "old"))  # back to what it was
    assert (again.outcome, again.generation) == (Outcome.INGESTED, 3)
    assert (await index.stats()).chunk_count == again.chunk_count


async def test_a_changed_title_or_source_is_a_change(ingestor: Ingestor) -> None:
    for document in (Document("a", "Text."), Document("a", "Text.", title="T"), Document("a", "Text.", source="S")):
        assert (await ingestor.ingest(document)).outcome is Outcome.INGESTED


async def test_two_versions_in_one_stream_are_taken_in_order(ingestor: Ingestor, index: MoodyIndex) -> None:
    versions = [make_document("a", size, f"v{size}") for size in (9, 3, 5)]
    receipts = await ingest(ingestor, [versions[0], make_document("b"), *versions[1:]])
    assert [(receipt.document_id, receipt.generation) for receipt in receipts] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("a", 3),
    ]
    assert (await index.get_records(["a"]))["a"].content_hash == versions[2].content_hash()
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


async def test_a_refused_update_leaves_the_old_version(ingestor: Ingestor, index: MoodyIndex) -> None:
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
    ingestor: Ingestor, index: MoodyIndex, encoder: MoodyEncoder, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH_TOKENS_MAX", 64)
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
    assert set(await index.get_records("abcd")) == {"a", "b"}

    encoder.failures, index.failures = [], []
    receipts = await ingest(ingestor, documents)
    assert [receipt.outcome.value for receipt in receipts] == ["unchanged", "unchanged", "ingested", "ingested"]
    assert (await index.stats()).chunk_count == sum(receipt.chunk_count for receipt in receipts)
    assert receipts[0].chunk_count == finished


async def test_leftovers_of_a_crash_never_enter_a_later_version(
    ingestor: Ingestor, index: MoodyIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(_: object) -> None:
        raise StorageFull("crashed")

    await ingestor.ingest(make_document("a", 4))
    with monkeypatch.context() as patched:
        patched.setattr(index, "commit_record", crash)
        with pytest.raises(StorageFull):
            await ingestor.ingest(make_document("a", 40, "crashed"))
    assert (await index.stats()).chunk_count > 20
    receipt = await ingestor.ingest(make_document("a", 3, "after"))
    assert receipt.generation == 2
    assert await contents(index, "a") == {"a": (2, receipt.chunk_count, receipt.chunk_count)}
    assert (await index.stats()).chunk_count == receipt.chunk_count
    assert await index.search_sparse(sparse_query("crashed"), 5) == []


async def test_lost_chunks_are_noticed_before_the_commit(ingestor: Ingestor, index: MoodyIndex) -> None:
    index.forgetful = True
    (receipt,) = await ingest(ingestor, [make_document("a")])
    assert receipt.outcome is Outcome.REJECTED
    assert "chunks of a; ingest it again" in str(receipt.error)
    assert (await index.stats()).chunk_count == (await index.stats()).document_count == 0
    index.forgetful = False
    assert (await ingestor.ingest(make_document("a"))).outcome is Outcome.INGESTED


async def test_an_unchanged_document_whose_chunks_are_gone_is_written_again(
    ingestor: Ingestor, index: MoodyIndex
) -> None:
    first = await ingestor.ingest(make_document("a"))
    await index.delete_generations("a", keep=0)
    second = await ingestor.ingest(make_document("a"))
    assert (second.outcome, second.generation) == (Outcome.INGESTED, 2)
    assert await contents(index, "a") == {"a": (2, first.chunk_count, first.chunk_count)}


async def test_batches_join_documents_and_are_bounded(
    ingestor: Ingestor, encoder: MoodyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH_TOKENS_MAX", 100)
    encoder._info = dataclasses.replace(encoder._info, batch_size_max=5)
    await ingest(ingestor, [make_document(f"d{number}", 2) for number in range(20)])
    assert max(len(batch) for batch in encoder.batches) == 5
    assert any(len({passage.split("\n")[0] for passage in batch}) > 1 for batch in encoder.batches)
    encoder.batches.clear()
    await ingest(ingestor, [make_document("long", 200)])
    assert max(len(batch) for batch in encoder.batches) == 5


async def test_another_encoder_than_the_indexs_is_refused(index: MoodyIndex) -> None:
    other = FakeEncoder(dimension=DIMENSION, fingerprint="other")
    with pytest.raises(FingerprintMismatch, match=r"model=fake .*model=other "):
        await Ingestor(other, index, make_chunker()).ingest(make_document("a"))


async def test_an_encoder_that_reads_too_little_is_refused(index: MoodyIndex, encoder: MoodyEncoder) -> None:
    encoder._info = dataclasses.replace(encoder._info, passage_tokens_max=80)
    with pytest.raises(CheckpointError, match=r"up to 80 tokens.*up to 81"):
        await Ingestor(encoder, index, make_chunker()).ingest(make_document("a"))


async def test_progress_is_told(encoder: MoodyEncoder, index: MoodyIndex) -> None:
    told: list[Progress] = []
    ingestor = Ingestor(encoder, index, make_chunker(), on_progress=told.append)
    documents = [make_document("a"), Document("bad", ""), make_document("b", 40)]
    receipts = await ingest(ingestor, documents)
    await ingest(ingestor, documents[:1])
    last = told[-1]
    assert (last.documents, last.ingested, last.unchanged, last.rejected) == (4, 2, 1, 1)
    assert last.chunks == sum(receipt.chunk_count for receipt in receipts)
    assert last.tokens == sum(receipt.token_count for receipt in receipts)
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
    assert given <= 3 + read_ahead.AHEAD_ITEMS_MAX + 2 * read_ahead.GROUP_ITEMS_MAX
    await receipts.aclose()
    stopped = given
    await asyncio.sleep(0.1)
    assert given <= stopped + 1


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


async def test_streams_that_write_one_document_take_turns(ingestor: Ingestor, index: MoodyIndex) -> None:
    async def stream(word: str) -> None:
        for size in range(1, 12):
            await ingestor.ingest(make_document("shared", size, word))
            await ingest(ingestor, [make_document("other", 3, word), make_document("shared", size, f"{word}x")])

    await asyncio.gather(*(stream(word) for word in ("red", "green", "blue")))
    found = await contents(index, "shared", "other")
    assert all(counted == held for _, counted, held in found.values())
    assert (await index.stats()).chunk_count == sum(counts[1] for counts in found.values())
    words = {
        word for chunk in await index.get_chunks("shared", found["shared"][0], 0, 100) for word in chunk.text.split()
    }
    assert len(words & {"redx", "greenx", "bluex"}) == 1


async def test_deleting(ingestor: Ingestor, index: MoodyIndex) -> None:
    receipt = await ingestor.ingest(make_document("a"))
    assert await ingestor.delete("a") == receipt.chunk_count
    assert (await index.stats()).chunk_count == 0
    with pytest.raises(NotFound, match="no document 'a'"):
        await ingestor.delete("a")
    assert (await ingestor.ingest(make_document("a"))).generation == 1


async def test_nothing_gives_nothing(ingestor: Ingestor) -> None:
    assert await ingest(ingestor, []) == []
