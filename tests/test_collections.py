"""A server's collections behind aliases: made, built, measured, exchanged; services follow."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from qdrant_client import grpc as qdrant
from qdrant_client import models

from encoder.errors import (
    FingerprintMismatch,
    IndexMoved,
    IndexUnavailable,
    InUse,
    InvalidInput,
    NotFound,
    TimedOut,
)
from ingest.index.collections import Collections, Layout, MadeBy
from ingest.index.interface import IndexedChunk, VectorIndex
from ingest.index.recall import measure_recall
from ingest.index.server import ServerIndex
from services.backends import Backends
from services.search.requests import SearchRequest
from services.search.results import SearchMode
from services.search.searcher import Searcher
from tests.fakes import FakeEncoder
from tests.indexes import DIMENSION, EVERYWHERE, SERVER_URL, axis, key_of, make_chunk, make_record, places, search_dense
from tests.pipelining import make_chunker
from tests.qdrant_over_grpc import qdrant_over_grpc

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

MADE = MadeBy("model=m chunker=c", DIMENSION)
OTHER = MadeBy("model=other chunker=c", DIMENSION)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Collections]:
    found = await Collections.open(url)
    yield found
    await found.close()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with qdrant_over_grpc() as stand_in:
        yield SERVER_URL or stand_in


@pytest.fixture
async def collections(url: str) -> AsyncIterator[Collections]:
    async with opened(url) as found:
        yield found


@pytest.fixture
async def name(collections: Collections) -> AsyncIterator[str]:
    """A name that nobody has; what is called so is deleted afterwards."""
    found = f"test-{uuid.uuid4().hex[:8]}"
    yield found
    aliases = await collections.aliases()
    await collections.client.update_collection_aliases(
        [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            for alias in aliases
            if alias.startswith(found)
        ]
    )
    for suffix in ("", "-1", "-2", "-3"):
        if await collections.resolve(found + suffix):
            await collections.drop(found + suffix)


async def open_index(url: str, name: str, made_by: MadeBy = MADE) -> ServerIndex:
    return await ServerIndex.open(url, collection=name, dimension=made_by.dimension, fingerprint=made_by.fingerprint)


async def fill(url: str, collection: str, text: str, made_by: MadeBy = MADE) -> None:
    index = await open_index(url, collection, made_by)
    await index.upsert_chunks([make_chunk("d", 0, text)])
    await index.commit_record(make_record("d"))
    await index.close()


async def test_a_first_collection_gets_an_alias(url: str, collections: Collections, name: str) -> None:
    assert await collections.resolve(name) is None
    index = await open_index(url, name)
    assert await collections.aliases() == {name: f"{name}-1"}
    assert await collections.resolve(name) == await collections.resolve(f"{name}-1") == f"{name}-1"
    assert await collections.made_by(f"{name}-1") == MADE
    await index.upsert_chunks([make_chunk("d", 0, "kept")])
    again = await open_index(url, name)
    assert (await again.stats()).chunk_count == 1
    await index.close()
    await again.close()
    with pytest.raises(FingerprintMismatch, match=r"model=m.*model=other.*reindex"):
        await open_index(url, name, OTHER)


async def test_two_that_make_it_at_once_share_it(url: str, collections: Collections, name: str) -> None:
    indexes = await asyncio.gather(*(open_index(url, name) for _ in range(4)))
    for index in indexes:
        await index.upsert_chunks([make_chunk("d", 0, "one")])
        assert (await index.stats()).chunk_count == 1
        await index.close()
    outcomes = await asyncio.gather(
        open_index(url, f"{name}-2", MADE), open_index(url, f"{name}-2", OTHER), return_exceptions=True
    )
    kinds = sorted(type(outcome).__name__ for outcome in outcomes)
    assert kinds == ["FingerprintMismatch", "ServerIndex"]
    for outcome in outcomes:
        if isinstance(outcome, ServerIndex):
            await outcome.close()
    await collections.client.delete_collection(f"{name}-2-1")


async def test_a_switch_stops_writers_of_the_old_collection(url: str, collections: Collections, name: str) -> None:
    await collections.create(f"{name}-1", MADE, Layout())
    await collections.create(f"{name}-2", MADE, Layout(shards=2, quantization="binary", vectors_on_disk=True))
    with pytest.raises(InUse, match="exists"):
        await collections.create(f"{name}-2", MADE, Layout())
    await collections.switch(name, f"{name}-1")
    index = await open_index(url, name)
    await index.upsert_chunks([make_chunk("d", 0, "old words")])
    await index.commit_record(make_record("d"))
    await collections.switch(name, f"{name}-2")
    assert await collections.resolve(name) == f"{name}-2"
    # It stays with what it was opened for, and its writes are refused: nobody would see them.
    assert places(await search_dense(index, axis(0), 5, EVERYWHERE)) == [("d", 1, 0)]
    for write in (
        index.commit_record(make_record("d", generation=2)),
        index.delete_record(key_of("d"), 2),
        index.fence(key_of("d"), 3),
        index.stats(),
    ):
        with pytest.raises(IndexMoved, match=f"{name} .* no longer leads to {name}-1"):
            await write
    assert (await index.get_records([key_of("d")]))[key_of("d")].generation == 1
    await index.close()
    with pytest.raises(InvalidInput, match=f"{name}-2 is what alias {name} leads to"):
        await collections.drop(f"{name}-2")
    await collections.drop(f"{name}-1")
    with pytest.raises(NotFound):
        await collections.drop(f"{name}-1")


async def test_an_alias_cannot_have_the_name_of_a_collection(collections: Collections, name: str) -> None:
    await collections.create(name, MADE, Layout())
    await collections.create(f"{name}-2", MADE, Layout())
    with pytest.raises(InvalidInput, match=f"{name} is a collection on .* give another alias") as refusal:
        await collections.switch(name, f"{name}-2")
    assert refusal.value.field == "alias"


async def test_the_graph_is_built_at_the_end_and_waited_for(name: str) -> None:
    states = [qdrant.CollectionStatus.Green, qdrant.CollectionStatus.Grey, *[qdrant.CollectionStatus.Yellow] * 3]
    async with qdrant_over_grpc(statuses=states) as url, opened(url) as collections:
        layout = Layout(hnsw_m=24, hnsw_deferred=True)
        await collections.create(name, MADE, layout)

        async def edges() -> int | None:
            return (await collections.client.get_collection(name)).config.hnsw_config.m

        assert await edges() == 0  # takes the first status, too
        with pytest.raises(TimedOut, match="was not optimized in 0 s"):
            await collections.build(name, layout, timeout_s=0, look_period_s=0)
        await collections.build(name, layout, timeout_s=30, look_period_s=0)
        assert await edges() == 24


async def test_a_collection_that_cannot_be_optimized_is_told_of(name: str) -> None:
    async with qdrant_over_grpc(statuses=[qdrant.CollectionStatus.Red]) as url, opened(url) as collections:
        await collections.create(name, MADE, Layout())
        with pytest.raises(IndexUnavailable, match="cannot optimize collection"):
            await collections.build(name, Layout(), timeout_s=30, look_period_s=0)


def scattered(count: int) -> list[IndexedChunk]:
    generator = np.random.default_rng(0)
    chunks = []
    for number in range(count):
        made = make_chunk("d", number, f"text {number}", tenant=("default", "other")[number % 2])
        embedding = generator.normal(size=DIMENSION).astype(np.float32)
        chunks.append(IndexedChunk(made.chunk, embedding, made.sparse))
    return chunks


@pytest.mark.parametrize(("missed", "expected"), [(0, 1.0), (4, 0.7)])
async def test_recall_is_measured_against_exact_search(missed: int, expected: float, name: str) -> None:
    """Of eleven asked for, the chunk itself and three others are missed."""
    async with qdrant_over_grpc(missed=missed) as url, opened(url) as collections:
        await collections.create(name, MADE, Layout())
        assert await measure_recall(collections, name, queries=5) == 1.0  # nothing to find
        index = await open_index(url, name)
        await index.upsert_chunks(scattered(100))
        await index.commit_record(make_record("d"))
        await index.close()
        assert await measure_recall(collections, name, queries=20) == pytest.approx(expected)


async def test_services_follow_the_alias_under_search(url: str, collections: Collections, name: str) -> None:
    encoder, chunker = FakeEncoder(dimension=DIMENSION), make_chunker()
    made = MadeBy(f"model=fake chunker={chunker.fingerprint}", DIMENSION)
    for number in (1, 2):
        await collections.create(f"{name}-{number}", made, Layout())
        await fill(url, f"{name}-{number}", f"apple version{number}", made)
    await collections.switch(name, f"{name}-1")

    async def give_index(dimension: int, fingerprint: str) -> VectorIndex:
        return await open_index(url, name, MadeBy(fingerprint, dimension))

    def make(used: FakeEncoder, index: VectorIndex) -> Searcher:
        return Searcher(used, index, chunker._tokenizer)

    backends = Backends(encoder, give_index, make, chunker.fingerprint)  # type: ignore[arg-type]
    assert await backends.check() is None
    answers: list[str] = []
    done = asyncio.Event()

    async def search() -> None:
        while not done.is_set():
            (hit,) = (await backends.get().search(SearchRequest("apple", SearchMode.HYBRID, 5))).hits
            answers.append(hit.chunk.text)

    searching = [asyncio.create_task(search()) for _ in range(3)]
    await asyncio.sleep(0.1)
    await collections.switch(name, f"{name}-2")
    await asyncio.sleep(0.1)
    assert isinstance(await backends.check(), IndexMoved)
    assert await backends.check() is None
    await asyncio.sleep(0.1)
    done.set()
    await asyncio.gather(*searching)
    assert answers[0] == "apple version1"
    assert answers[-1] == "apple version2"
    assert set(answers) == {"apple version1", "apple version2"}
    await backends.close()


async def test_a_service_of_the_old_model_answers_on_and_is_unhealthy(
    url: str, collections: Collections, name: str
) -> None:
    encoder, chunker = FakeEncoder(dimension=DIMENSION), make_chunker()
    made = MadeBy(f"model=fake chunker={chunker.fingerprint}", DIMENSION)
    await collections.create(f"{name}-1", made, Layout())
    await fill(url, f"{name}-1", "apple old", made)
    await collections.create(f"{name}-2", OTHER, Layout())
    await fill(url, f"{name}-2", "apple new", OTHER)
    await collections.switch(name, f"{name}-1")

    async def give_index(dimension: int, fingerprint: str) -> VectorIndex:
        return await open_index(url, name, MadeBy(fingerprint, dimension))

    def make(used: FakeEncoder, index: VectorIndex) -> Searcher:
        return Searcher(used, index, chunker._tokenizer)

    backends = Backends(encoder, give_index, make, chunker.fingerprint)  # type: ignore[arg-type]
    assert await backends.check() is None
    await collections.switch(name, f"{name}-2")
    assert isinstance(await backends.check(), IndexMoved)
    for _ in range(3):
        assert isinstance(await backends.check(), FingerprintMismatch)
        (hit,) = (await backends.get().search(SearchRequest("apple", SearchMode.HYBRID, 5))).hits
        assert hit.chunk.text == "apple old"
    await collections.switch(name, f"{name}-1")
    assert await backends.check() is None
    await backends.close()
