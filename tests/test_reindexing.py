"""An index moves to another model while it is searched and written to: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mambasearch.v1 import index_pb2_grpc

from encoder.errors import EncoderUnavailable, FingerprintMismatch, IndexMoved, InUse, InvalidInput, NotFound
from ingest.bulk.filling import DocumentEncoder
from ingest.chunk_encoding import ChunksAlone
from ingest.chunking import Chunker
from ingest.collecting import Collector
from ingest.index import wire
from ingest.index.collections import Collections, Layout, MadeBy
from ingest.index.data_directory import read_manifest
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import DocumentKey, VectorIndex
from ingest.index.memory import MemoryIndex
from ingest.index.remote import RemoteIndex
from ingest.index.server import ServerIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from ingest.reindexing import Pass, Reindexer
from ingest.sparse import sparse_query
from services.grpc_server import GrpcServer
from services.index_owner import SERVICE, IndexOwner
from services.moving.reindexing import Mover, reindex_collection, reindex_directory
from tests.fakes import FakeEncoder
from tests.indexes import EVERYWHERE, search_sparse
from tests.moving import NEW, OLD, OLD_DIMENSION, NewEncoder, check_moved, new_chunker
from tests.pipelining import make_chunker, make_document
from tests.qdrant_over_grpc import qdrant_over_grpc

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


class Killed(BaseException):
    """Ends a move wherever it is."""


@dataclass
class Writing:
    """An ingestion worker of the old model."""

    ingestor: Ingestor
    index: VectorIndex


@asynccontextmanager
async def writing(
    index: VectorIndex, journal: Journal, encoder: FakeEncoder | None = None, chunker: Chunker | None = None
) -> AsyncIterator[Ingestor]:
    encoder = encoder or FakeEncoder(dimension=OLD_DIMENSION)
    yield Ingestor(encoder, index, chunker or make_chunker(), journal, retry_delays_s=(0, 0))
    await index.close()


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    opened = await Journal.open()
    yield opened
    await opened.close()


@pytest.fixture
def encoder() -> NewEncoder:
    return NewEncoder()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def mover(encoder: NewEncoder, told: list[str]) -> Mover:
    return Mover(DocumentEncoder(encoder, ChunksAlone()), new_chunker(), NEW, lambda _: None, told.append)


async def open_embedded(directory: Path, made_by: MadeBy) -> EmbeddedIndex:
    return await EmbeddedIndex.open(directory, dimension=made_by.dimension, fingerprint=made_by.fingerprint)


async def open_server(url: str, name: str, made_by: MadeBy) -> ServerIndex:
    return await ServerIndex.open(url, collection=name, dimension=made_by.dimension, fingerprint=made_by.fingerprint)


async def test_what_has_grown_is_moved_whole(encoder: NewEncoder, journal: Journal) -> None:
    source = MemoryIndex(dimension=OLD.dimension, fingerprint=OLD.fingerprint)
    target = MemoryIndex(dimension=NEW.dimension, fingerprint=NEW.fingerprint)
    reindexer = Reindexer(source, target, DocumentEncoder(encoder, ChunksAlone()), new_chunker(), lambda _: None)
    old = Ingestor(FakeEncoder(dimension=OLD_DIMENSION), source, make_chunker(), journal)
    first = replace(make_document("log"), growing=True)
    await old.ingest(first)
    grown = replace(first, text=f"{first.text}\n\nThen number12345 came. And more of it than before.")
    await old.ingest(grown)
    (record,), _ = await source.list_records(None, "", 10)
    assert len(record.segments) == 2
    assert (await reindexer.catch_up(alone=True)).copied == 1
    await check_moved(target, {record.key})
    (moved,), _ = await target.list_records(None, "", 10)
    assert (moved.earlier, moved.content_hash) == ((), grown.content_hash())
    blank = replace(grown, text=f"{grown.text}\n\n")
    await old.ingest(blank)
    assert (await reindexer.catch_up(alone=True)).updated == 1
    ((moved,), _) = await target.list_records(None, "", 10)
    assert (moved.char_count, moved.content_hash) == (len(blank.text), blank.content_hash())
    await check_moved(target, {record.key})


async def test_a_pass_copies_what_differs_and_keeps_generations(encoder: NewEncoder, journal: Journal) -> None:
    source = MemoryIndex(dimension=OLD.dimension, fingerprint=OLD.fingerprint)
    target = MemoryIndex(dimension=NEW.dimension, fingerprint=NEW.fingerprint)
    reindexer = Reindexer(source, target, DocumentEncoder(encoder, ChunksAlone()), new_chunker(), lambda _: None)
    old = Ingestor(FakeEncoder(dimension=OLD_DIMENSION), source, make_chunker(), journal)
    documents = [make_document(f"d{number}", 30) for number in range(12)]
    for document in [*documents, make_document("d3", 31), make_document("d4", 29)]:
        await old.ingest(document)
    theirs = make_document("d1", 5)
    for tenant in ("other", "third"):
        await old.ingest(type(theirs)(**{**_fields(theirs), "tenant": tenant}))
    found = await reindexer.catch_up(alone=True)
    assert (found.compared, found.copied, found.updated, found.deleted, found.failed) == (14, 14, 0, 0, [])
    assert (await reindexer.catch_up(alone=True)).changes == 0
    keys = {DocumentKey("default", document.document_id) for document in documents}
    keys |= {DocumentKey("other", "d1"), DocumentKey("third", "d1")}
    await check_moved(target, keys)
    before, after = await source.get_records([*keys]), await target.get_records([*keys])
    assert {key: before[key].generation for key in keys} == {key: after[key].generation for key in keys}
    # What is new, what has other metadata, what is gone.
    await old.ingest(make_document("d5", 40))
    await old.ingest(type(theirs)(**{**_fields(documents[6]), "metadata": {"year": 7}}))
    await old.delete("d7")
    found = await reindexer.catch_up(alone=True)
    assert (found.copied, found.updated, found.deleted) == (1, 1, 1)
    assert (await reindexer.catch_up(alone=True)).changes == 0
    await check_moved(target, keys - {DocumentKey("default", "d7")})
    assert (await target.get_records([DocumentKey("default", "d6")]))[DocumentKey("default", "d6")].metadata == {
        "year": 7
    }
    # What a writer of the new model has changed since stays.
    new = Ingestor(encoder, target, new_chunker(), journal)
    assert (
        await new.ingest(type(theirs)(**{**_fields(documents[8]), "metadata": {"year": 8}}))
    ).outcome is Outcome.UPDATED
    assert (await reindexer.catch_up(alone=False)).changes == 0
    # Ingesting the original again, into the new index, encodes nothing; a new version goes on from the generations.
    encoded = encoder.passages
    assert (await new.ingest(documents[2])).outcome is Outcome.UNCHANGED
    assert encoder.passages == encoded
    assert (await new.ingest(make_document("d5", 41))).generation > 2


def _fields(document: Any) -> dict[str, Any]:
    return {name: getattr(document, name) for name in document.__slots__}


@asynccontextmanager
async def owner_of(directory: Path) -> AsyncIterator[str]:
    owner = IndexOwner(directory)
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: index_pb2_grpc.add_IndexServiceServicer_to_server(owner, grpc_server),
        message_bytes_max=wire.MESSAGE_BYTES_MAX,
        calls_max=16,
    )
    await owner.open_existing()
    await server.start("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop()
        await owner.close()


async def fill(index: VectorIndex, journal: Journal, count: int = 10) -> None:
    async with writing(index, journal) as ingestor:
        for number in range(count):
            await ingestor.ingest(make_document(f"d{number}", 20))


async def test_a_directory_is_exchanged_when_its_service_stops(
    tmp_path: Path, journal: Journal, mover: Mover, encoder: NewEncoder, told: list[str]
) -> None:
    await fill(await open_embedded(tmp_path, OLD), journal)
    copied = asyncio.Event()
    async with owner_of(tmp_path) as target:
        remote = await RemoteIndex.connect(target, dimension=OLD.dimension, fingerprint=OLD.fingerprint)
        async with writing(remote, journal) as ingestor:

            async def write_once() -> None:
                encoder.before = None
                await ingestor.ingest(make_document("d0", 33))
                await ingestor.ingest(make_document("late", 8))
                await ingestor.delete("d9")
                copied.set()

            encoder.before = write_once
            moving = asyncio.create_task(reindex_directory(mover, tmp_path, target))
            await copied.wait()
            while not told:
                assert not moving.done(), moving
                await asyncio.sleep(0.05)
            assert "stop the service" in told[0]
            manifest = await asyncio.to_thread(read_manifest, tmp_path)
            assert manifest is not None
            assert manifest.fingerprint == OLD.fingerprint
            await ingestor.ingest(make_document("last", 6))  # after everything had been copied
            assert await search_sparse(remote, sparse_query("word"), 3, EVERYWHERE)
    await moving
    names_left = await asyncio.to_thread(lambda: sorted(path.name for path in tmp_path.iterdir()))
    assert names_left == ["engine-2", "index.json", "lock"]
    with pytest.raises(FingerprintMismatch):
        await open_embedded(tmp_path, OLD)
    index = await open_embedded(tmp_path, NEW)
    names = {*(f"d{number}" for number in range(9)), "late", "last"}
    await check_moved(index, {DocumentKey("default", name) for name in names})
    hits = await search_sparse(index, sparse_query("number32"), 5, EVERYWHERE)
    assert {hit.chunk.document_id for hit in hits} == {"d0"}
    await index.close()
    with pytest.raises(InvalidInput, match="already"):
        await reindex_directory(mover, tmp_path, "127.0.0.1:1")


async def test_a_move_of_a_directory_goes_on_after_a_kill(
    tmp_path: Path, journal: Journal, mover: Mover, encoder: NewEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.reindexing.GROUP_TOKENS", 1)  # each document alone
    with pytest.raises(NotFound, match="holds no index"):
        await reindex_directory(mover, tmp_path / "nothing", "127.0.0.1:1")
    index = await open_embedded(tmp_path, OLD)
    async with writing(index, journal) as ingestor:
        for number in range(4):
            await ingestor.ingest(make_document(f"d{number}", 20))

    async def stop() -> None:
        if encoder.passages:
            raise Killed

    encoder.before = stop
    with pytest.raises(Killed):
        await reindex_directory(mover, tmp_path, "127.0.0.1:1")
    first = encoder.passages
    assert first
    encoder.before = None
    await reindex_directory(mover, tmp_path, "127.0.0.1:1")
    index = await open_embedded(tmp_path, NEW)
    await check_moved(index, {DocumentKey("default", f"d{number}") for number in range(4)})
    chunks = (await index.stats()).chunk_count
    assert encoder.passages == chunks  # what had been copied was not encoded again
    await index.close()


async def test_a_directory_that_somebody_else_holds_is_named(tmp_path: Path, journal: Journal, mover: Mover) -> None:
    index = await open_embedded(tmp_path, OLD)
    with pytest.raises(InUse, match="--index-target"):
        await reindex_directory(mover, tmp_path, "127.0.0.1:1")
    await index.close()


async def test_an_encoder_that_is_away_ends_a_move(
    tmp_path: Path, journal: Journal, mover: Mover, encoder: NewEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an owner that is away is waited for: it was stopped for the exchange."""
    monkeypatch.setattr("ingest.bulk.filling.RETRY_DELAYS_S", ())
    await fill(await open_embedded(tmp_path, OLD), journal, 1)

    async def be_away() -> None:
        raise EncoderUnavailable("The encoder is away.")

    encoder.before = be_away
    async with owner_of(tmp_path) as target, asyncio.timeout(10):
        with pytest.raises(EncoderUnavailable):
            await reindex_directory(mover, tmp_path, target)


async def test_a_document_that_the_new_model_cannot_read_stops_the_exchange(
    tmp_path: Path, journal: Journal, mover: Mover
) -> None:
    async with writing(await open_embedded(tmp_path, OLD), journal) as ingestor:
        await ingestor.ingest(make_document("good"))
        await ingestor.ingest(make_document("bad", word="poison"))
    with pytest.raises(InvalidInput, match=r"1 documents cannot be moved, the first is bad .*poisoned"):
        await reindex_directory(mover, tmp_path, "127.0.0.1:1")
    index = await open_embedded(tmp_path, OLD)
    async with writing(index, journal) as ingestor:
        await ingestor.delete("bad")
    await reindex_directory(mover, tmp_path, "127.0.0.1:1")
    index = await open_embedded(tmp_path, NEW)
    await check_moved(index, {DocumentKey("default", "good")})
    await index.close()


async def test_a_collection_moves_behind_its_alias_while_it_is_written(
    journal: Journal, mover: Mover, encoder: NewEncoder
) -> None:
    async with qdrant_over_grpc() as url:
        old = await open_server(url, "main", OLD)
        await fill(await open_server(url, "main", OLD), journal, 6)
        async with writing(old, journal) as ingestor:

            async def write_once() -> None:
                encoder.before = None
                await ingestor.ingest(make_document("d0", 33))
                await ingestor.delete("d5")

            encoder.before = write_once
            moved = await reindex_collection(
                mover, url, "main", None, Layout(hnsw_deferred=True), settle_s=0.2, look_period_s=0
            )
            assert (moved.old, moved.new, moved.recall) == ("main-1", "main-2", 1.0)
            # The worker of the old model is told, and what it has not acknowledged is not lost: it comes again.
            with pytest.raises(IndexMoved):
                await ingestor.ingest(make_document("after"))
        new = await open_server(url, "main", NEW)
        await check_moved(new, {DocumentKey("default", f"d{number}") for number in range(5)})
        async with writing(new, journal, encoder, new_chunker()) as ingestor:
            assert (await ingestor.ingest(make_document("after"))).outcome is Outcome.INGESTED
        with pytest.raises(InvalidInput, match="already"):
            await reindex_collection(mover, url, "main", None, Layout(), settle_s=0, look_period_s=0)
        with pytest.raises(NotFound, match="no alias nobody"):
            await reindex_collection(mover, url, "nobody", None, Layout(), settle_s=0, look_period_s=0)
        with pytest.raises(InvalidInput, match="main-2 is a collection"):
            await reindex_collection(mover, url, "main-2", None, Layout(), settle_s=0, look_period_s=0)


async def test_what_was_under_way_at_the_switch_is_taken_in(
    journal: Journal, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that had passed its check before the switch, and is applied after it; and a kill in between."""
    async with qdrant_over_grpc() as url:
        await fill(await open_server(url, "main", OLD), journal, 3)
        late = await open_server(url, "main", OLD)
        late._name = late._collection  # checks no more: as if it had just done so
        switch = Collections.switch

        async def switch_and_end(self: Collections, alias: str, collection: str) -> None:
            await switch(self, alias, collection)
            raise Killed

        monkeypatch.setattr(Collections, "switch", switch_and_end)
        with pytest.raises(Killed):
            await reindex_collection(mover, url, "main", "other", Layout(), settle_s=0, look_period_s=0)
        monkeypatch.setattr(Collections, "switch", switch)
        async with writing(late, journal) as ingestor:
            await ingestor.ingest(make_document("d1", 25))
            await ingestor.ingest(make_document("new", 5))
            await ingestor.delete("d2")
        new = await open_server(url, "main", NEW)
        ours = Ingestor(mover.encoder.encoder, new, new_chunker(), journal)
        newest = await ours.ingest(make_document("d0", 44))  # by a worker of the new model
        moved = await reindex_collection(mover, url, "main", "other", Layout(), settle_s=0, look_period_s=0)
        assert (moved.old, moved.new) == ("main-1", "other")
        await Collector(new, journal, 0).collect(within_s=1e6)
        await check_moved(new, {DocumentKey("default", name) for name in ("d0", "d1", "new")})
        records = await new.get_records([DocumentKey("default", "d0")])
        assert records[DocumentKey("default", "d0")].generation == newest.generation
        await new.close()
        with pytest.raises(InvalidInput, match="already"):
            await reindex_collection(mover, url, "main", "other", Layout(), settle_s=0, look_period_s=0)


def test_a_pass_counts_what_differed() -> None:
    assert Pass(compared=9).changes == 0
    assert Pass(copied=1, updated=2, deleted=3, retry=4).changes == 10
