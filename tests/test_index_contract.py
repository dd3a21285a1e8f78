"""What every index must do, asked of each: embedded, behind the owner, on Qdrant (local mode; a server where given)."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from mambasearch.v1 import index_pb2_grpc
from qdrant_client import AsyncQdrantClient

from encoder.errors import FingerprintMismatch, IndexUnavailable, InvalidInput
from ingest.index import wire
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import (
    BATCH_CHUNKS_MAX,
    DocumentRecord,
    IndexedChunk,
    IndexHit,
    SparseVector,
    StoredChunk,
    VectorIndex,
)
from ingest.index.memory import MemoryIndex
from ingest.index.opening import open_index
from ingest.index.remote import RemoteIndex
from ingest.index.server import ServerIndex
from ingest.sparse import sparse_passage, sparse_query
from services.grpc_server import GrpcServer
from services.index_owner import SERVICE, IndexOwner
from tests.qdrant_over_grpc import qdrant_over_grpc

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

DIMENSION = 8
FINGERPRINT = "model=m chunker=c"
SERVER_URL = os.environ.get("MAMBASEARCH_QDRANT_URL")  # noqa: TID251 - tests only
NO_SERVER = pytest.mark.skipif(SERVER_URL is None, reason="MAMBASEARCH_QDRANT_URL names no Qdrant server")

Open = Callable[[], Awaitable[VectorIndex]]


@asynccontextmanager
async def running_owner(tmp_path: Path) -> AsyncIterator[str]:
    owner = IndexOwner(tmp_path / "owner")
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: index_pb2_grpc.add_IndexServiceServicer_to_server(owner, grpc_server),
        message_bytes_max=wire.MESSAGE_BYTES_MAX,
        calls_max=16,
    )
    await server.start("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop()
        await owner.close()


@pytest.fixture
async def owner_target(tmp_path: Path) -> AsyncIterator[str]:
    async with running_owner(tmp_path) as target:
        yield target


@pytest.fixture(params=["embedded", "memory", "remote", "local_mode", "grpc", pytest.param("server", marks=NO_SERVER)])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorIndex]:
    async with AsyncExitStack() as stack:
        opened: VectorIndex
        match request.param:
            case "embedded":
                opened = await EmbeddedIndex.open(tmp_path / "data", dimension=DIMENSION, fingerprint=FINGERPRINT)
            case "memory":
                opened = MemoryIndex(dimension=DIMENSION, fingerprint=FINGERPRINT)
            case "remote":
                target = await stack.enter_async_context(running_owner(tmp_path))
                opened = await RemoteIndex.connect(target, dimension=DIMENSION, fingerprint=FINGERPRINT)
            case "local_mode":
                client = AsyncQdrantClient(location=":memory:")
                opened = await ServerIndex.open(client, collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)
            case "grpc":
                address = await stack.enter_async_context(qdrant_over_grpc())
                opened = await ServerIndex.open(address, collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)
            case _:
                assert SERVER_URL
                collection = f"test-{uuid.uuid4()}"
                opened = await ServerIndex.open(
                    SERVER_URL, collection=collection, dimension=DIMENSION, fingerprint=FINGERPRINT
                )
                stack.push_async_callback(opened._client.delete_collection, collection)
        stack.push_async_callback(opened.close)
        yield opened


def make_chunk(
    document_id: str, chunk_index: int, text: str, *, generation: int = 1, direction: int | None = None
) -> IndexedChunk:
    """A chunk whose embedding points along one axis, by its index unless said otherwise."""
    embedding = np.zeros(DIMENSION, dtype=np.float32)
    embedding[(chunk_index if direction is None else direction) % DIMENSION] = 1
    stored = StoredChunk(document_id, generation, chunk_index, 10 * chunk_index, 10 * chunk_index + 9, 3, text)
    return IndexedChunk(stored, embedding, sparse_passage(text))


def make_record(document_id: str, *, generation: int = 1, chunk_count: int = 1) -> DocumentRecord:
    return DocumentRecord(
        document_id=document_id,
        title=f"Title of {document_id}",
        source="a/b.txt",
        generation=generation,
        chunk_count=chunk_count,
        token_count=2**33,
        char_count=2**34,
        content_hash="ab" * 32,
        ingested_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    )


def axis(direction: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    embedding = np.zeros(DIMENSION, dtype=np.float32)
    embedding[direction] = 1
    return embedding


def places(hits: list[IndexHit]) -> list[tuple[str, int, int]]:
    return [(hit.chunk.document_id, hit.chunk.generation, hit.chunk.chunk_index) for hit in hits]


STRANGE_IDS = ["a", "a/b:1", 'quote"\\', "é∂ 日本", "x" * 512, "chunk/1/0/a", "' OR 1=1", "{}"]


async def test_chunks_come_back_as_they_were_written(index: VectorIndex) -> None:
    chunks = [make_chunk(document_id, 0, f"Text of {document_id}\n\t\u2028é") for document_id in STRANGE_IDS]
    await index.upsert_chunks(chunks)
    for indexed in chunks:
        document_id = indexed.chunk.document_id
        assert await index.get_chunks(document_id, 1, 0, 5) == [indexed.chunk]
        assert await index.count_chunks(document_id, 1) == 1
        assert await index.count_chunks(document_id, 2) == 0
    assert (await index.stats()).chunk_count == len(STRANGE_IDS)
    assert (await index.stats()).document_count == 0


async def test_get_chunks_gives_the_range_that_exists_in_order(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d", number, f"number {number}") for number in (4, 0, 2, 1, 3)])
    assert [chunk.chunk_index for chunk in await index.get_chunks("d", 1, 1, 3)] == [1, 2, 3]
    assert [chunk.chunk_index for chunk in await index.get_chunks("d", 1, 3, 900)] == [3, 4]
    assert await index.get_chunks("d", 1, 3, 2) == []
    assert await index.get_chunks("nobody", 1, 0, 3) == []


async def test_writing_twice_doubles_nothing(index: VectorIndex) -> None:
    for _ in range(2):
        await index.upsert_chunks([make_chunk("d", number, "same words") for number in range(3)])
        await index.commit_record(make_record("d", chunk_count=3))
    assert await index.count_chunks("d", 1) == 3
    stats = await index.stats()
    assert (stats.document_count, stats.chunk_count) == (1, 3)
    assert len(await index.search_sparse(sparse_query("same"), 10)) == 3


async def test_records_come_back_and_are_replaced(index: VectorIndex) -> None:
    records = [make_record(document_id) for document_id in STRANGE_IDS]
    for record in records:
        await index.commit_record(record)
    found = await index.get_records([*STRANGE_IDS, "nobody"])
    assert found == {record.document_id: record for record in records}
    newer = make_record("a", generation=2, chunk_count=7)
    await index.commit_record(newer)
    assert await index.get_records(["a"]) == {"a": newer}
    assert await index.get_records([]) == {}
    assert (await index.stats()).document_count == len(STRANGE_IDS)


async def test_dense_search_ranks_by_cosine_and_never_finds_records(index: VectorIndex) -> None:
    await index.commit_record(make_record("d"))
    await index.upsert_chunks([make_chunk("d", number, f"number {number}") for number in range(DIMENSION)])
    query = (axis(2) + 0.5 * axis(5)) * 7  # cosine does not care for length
    hits = await index.search_dense(query.astype(np.float32), 3)
    assert places(hits)[:2] == [("d", 1, 2), ("d", 1, 5)]
    assert hits[0].score == pytest.approx(1 / np.sqrt(1.25), abs=1e-5)
    assert hits[1].score == pytest.approx(0.5 / np.sqrt(1.25), abs=1e-5)
    assert len(hits) == 3
    assert len(await index.search_dense(axis(0), 1000)) == DIMENSION


async def test_sparse_search_scores_by_bm25(index: VectorIndex) -> None:
    texts = ["red apple", "green apple tree", "a yellow lemon", "apple apple pie"]
    await index.upsert_chunks([make_chunk("d", number, text) for number, text in enumerate(texts)])
    query = sparse_query("Apples and pies")
    hits = await index.search_sparse(query, 10)
    assert {place[2] for place in places(hits)} == {0, 1, 3}
    assert hits[0].chunk.chunk_index == 3

    def inverse_document_frequency(count: int) -> float:
        return float(np.log(1 + (len(texts) - count + 0.5) / (count + 0.5)))

    for hit in hits:
        weights = dict(zip(*_lists(sparse_passage(hit.chunk.text)), strict=True))
        apple, pie = (sparse_query(word).indices[0] for word in ("apple", "pie"))
        expected = inverse_document_frequency(3) * weights.get(apple, 0)
        expected += inverse_document_frequency(1) * weights.get(pie, 0)
        assert hit.score == pytest.approx(expected, rel=1e-4)


def _lists(sparse: SparseVector) -> tuple[list[int], list[float]]:
    return sparse.indices.tolist(), sparse.values.tolist()


async def test_a_query_without_terms_finds_nothing_by_words(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d", 0, "the words"), make_chunk("d", 1, "§ ! ?")])
    assert await index.search_sparse(sparse_query("the and of !"), 5) == []
    assert await index.search_sparse(sparse_query("unheard"), 5) == []
    # A chunk without terms is still found by its embedding.
    assert places(await index.search_dense(axis(1), 1)) == [("d", 1, 1)]


async def test_deleting_generations_keeps_one(index: VectorIndex) -> None:
    for generation, count in ((1, 3), (2, 2), (3, 1)):
        chunks = [make_chunk("d", number, f"v{generation}", generation=generation) for number in range(count)]
        await index.upsert_chunks(chunks)
    await index.upsert_chunks([make_chunk("other", 0, "stays")])
    await index.commit_record(make_record("d", generation=2, chunk_count=2))
    assert await index.delete_generations("d", keep=2) == 4
    assert await index.delete_generations("d", keep=2) == 0
    assert [await index.count_chunks("d", generation) for generation in (1, 2, 3)] == [0, 2, 0]
    assert set(places(await index.search_dense(axis(0), 10))) == {("d", 2, 0), ("d", 2, 1), ("other", 1, 0)}
    assert await index.search_sparse(sparse_query("v1 v3"), 10) == []
    assert await index.delete_generations("d", keep=0) == 2
    assert "d" in await index.get_records(["d"])


async def test_deleted_chunks_no_longer_count_in_document_frequencies(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d", number, "rare") for number in range(5)])
    await index.upsert_chunks([make_chunk("other", number, "common") for number in range(5)])
    await index.delete_generations("d", keep=0)
    await index.upsert_chunks([make_chunk("new", 0, "rare")])
    (hit,) = await index.search_sparse(sparse_query("rare"), 5)
    assert places([hit]) == [("new", 1, 0)]
    weight = sparse_passage("rare").values[0]
    if SERVER_URL and isinstance(index, ServerIndex):
        return  # a server forgets deleted chunks when it vacuums, in its own time
    assert hit.score == pytest.approx(weight * np.log(1 + (6 - 1 + 0.5) / 1.5), rel=1e-4)


async def test_deleting_a_document_takes_its_record_and_all_generations(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d", 0, "one"), make_chunk("d", 1, "two", generation=2)])
    await index.upsert_chunks([make_chunk("e", 0, "three")])
    await index.commit_record(make_record("d", generation=2))
    assert await index.delete_document("d") == 2
    assert await index.delete_document("d") == 0
    assert await index.get_records(["d"]) == {}
    assert places(await index.search_dense(axis(0), 10)) == [("e", 1, 0)]


async def test_what_breaks_a_limit_is_refused(index: VectorIndex) -> None:
    for call, field in (
        (index.search_dense(np.zeros(DIMENSION + 1, dtype=np.float32), 5), "embedding"),
        (index.search_dense(np.full(DIMENSION, np.nan, dtype=np.float32), 5), "embedding"),
        (index.search_dense(axis(0), 0), "limit"),
        (index.search_dense(axis(0), 1001), "limit"),
        (index.search_sparse(sparse_query("x1"), 0), "limit"),
        (index.get_records(["d"] * 1025), "document_ids"),
        (index.get_chunks("d", 1, 0, 1024), "last"),
        (index.upsert_chunks([make_chunk("d", 0, "x")] * (BATCH_CHUNKS_MAX + 1)), "chunks"),
    ):
        with pytest.raises(InvalidInput) as caught:
            await call
        assert caught.value.field == field


async def test_a_full_batch_of_long_chunks_travels(index: VectorIndex) -> None:
    text = "日本語 " * 1024
    chunks = [make_chunk("d", number, text) for number in range(BATCH_CHUNKS_MAX)]
    await index.upsert_chunks(chunks)
    assert await index.count_chunks("d", 1) == BATCH_CHUNKS_MAX
    assert len(await index.get_chunks("d", 1, 0, BATCH_CHUNKS_MAX - 1)) == BATCH_CHUNKS_MAX
    assert len(await index.search_dense(axis(0), BATCH_CHUNKS_MAX)) == BATCH_CHUNKS_MAX
    await index.upsert_chunks([])


async def test_remote_refuses_another_fingerprint(owner_target: str) -> None:
    index = await RemoteIndex.connect(owner_target, dimension=DIMENSION, fingerprint=FINGERPRINT)
    with pytest.raises(FingerprintMismatch, match=r"model=m chunker=c.*model=other"):
        await RemoteIndex.connect(owner_target, dimension=DIMENSION, fingerprint="model=other")
    with pytest.raises(FingerprintMismatch, match=r"dimension 8.*dimension 9"):
        await RemoteIndex.connect(owner_target, dimension=9, fingerprint=FINGERPRINT)
    await index.close()


async def test_remote_says_that_the_owner_is_away() -> None:
    with pytest.raises(IndexUnavailable, match=r"index owner at 127\.0\.0\.1:1 cannot be reached"):
        await RemoteIndex.connect("127.0.0.1:1", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_owner_asks_to_be_opened_first(owner_target: str) -> None:
    index = RemoteIndex(owner_target, dimension=DIMENSION, fingerprint=FINGERPRINT)
    with pytest.raises(IndexUnavailable, match="not open yet"):
        await index.stats()
    await index.close()


async def test_collection_is_kept_on_disk_and_bound_to_its_fingerprint(tmp_path: Path) -> None:
    async def open_local(fingerprint: str) -> ServerIndex:
        client = AsyncQdrantClient(path=str(tmp_path / "local"))
        return await ServerIndex.open(client, collection="c", dimension=DIMENSION, fingerprint=fingerprint)

    index = await open_local(FINGERPRINT)
    await index.upsert_chunks([make_chunk("d", 0, "kept")])
    await index.commit_record(make_record("d"))
    await index.close()
    with pytest.raises(FingerprintMismatch, match=r"Collection c .*model=m chunker=c.*model=other"):
        await open_local("model=other")
    index = await open_local(FINGERPRINT)
    assert await index.get_records(["d"]) == {"d": make_record("d")}
    assert places(await index.search_sparse(sparse_query("kept"), 1)) == [("d", 1, 0)]
    await index.close()


async def test_collection_made_by_others_is_refused() -> None:
    client = AsyncQdrantClient(location=":memory:")
    await client.create_collection("theirs", vectors_config={})
    with pytest.raises(FingerprintMismatch, match="theirs"):
        await ServerIndex.open(client, collection="theirs", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_server_that_is_away_or_misnamed() -> None:
    with pytest.raises(IndexUnavailable, match=r"http://127\.0\.0\.1:1 failed or cannot be reached"):
        await ServerIndex.open("http://127.0.0.1:1", collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)
    with pytest.raises(InvalidInput, match="qdrant_url is 'nonsense'"):
        await ServerIndex.open("nonsense", collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_opening_chooses_by_what_is_given(tmp_path: Path, owner_target: str) -> None:
    embedded = await open_index(dimension=DIMENSION, fingerprint=FINGERPRINT, directory=tmp_path / "d")
    assert isinstance(embedded, EmbeddedIndex)
    await embedded.close()
    remote = await open_index(dimension=DIMENSION, fingerprint=FINGERPRINT, target=owner_target, directory=tmp_path)
    assert isinstance(remote, RemoteIndex)
    await remote.close()
    with pytest.raises(IndexUnavailable, match="Qdrant"):
        await open_index(
            dimension=DIMENSION, fingerprint=FINGERPRINT, qdrant_url="http://127.0.0.1:1", target=owner_target
        )
    with pytest.raises(InvalidInput):
        await open_index(dimension=DIMENSION, fingerprint=FINGERPRINT)
