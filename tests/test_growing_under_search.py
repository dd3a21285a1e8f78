"""A document that grows again and again: no search misses what was there, and no collector takes what a record lists.

Between every two steps of writers, collectors and readers others may come in; batches may be applied in part and fail.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from encoder.errors import MambaSearchError
from encoder.fingerprint import index_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest import growing
from ingest.collecting import Collector
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.index.memory import MemoryIndex
from ingest.index.server import ServerIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from services.search.requests import SearchRequest
from services.search.results import SearchMode
from services.search.searcher import Searcher
from tests.benchmarks.replacing.interrupting import Failing, Interrupted
from tests.fakes import FakeEncoder
from tests.indexing import make_chunker
from tests.pipelining import Clock, clear, key
from tests.qdrant_over_grpc import qdrant_over_grpc

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

CHUNKER = make_chunker(16)
FINGERPRINT = index_fingerprint("fake", CHUNKER.fingerprint)
FIRST_PARTS = 20
ADDED_PARTS = 3
ADDITIONS = {"engine": 20, "server": 8}
SEGMENTS = 6  # then it is written whole, and the old version is collected
SEARCH_S_MAX = 20.0


def interrupted(index: object, generator: random.Random) -> Any:
    """Let others come in between the calls to an index."""
    return Interrupted(index, generator, Counter(), "anybody")


@pytest.fixture(params=list(ADDITIONS))
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[VectorIndex, int]]:
    """An index, and how often the document grows in it."""
    async with AsyncExitStack() as stack:
        if request.param == "engine":
            index: VectorIndex = await EmbeddedIndex.open(
                tmp_path, dimension=384, fingerprint=FINGERPRINT, write_bytes_min=0
            )
        else:
            address = await stack.enter_async_context(qdrant_over_grpc())
            index = await ServerIndex.open(address, collection="c", dimension=384, fingerprint=FINGERPRINT)
        stack.push_async_callback(index.close)
        yield index, ADDITIONS[request.param]


def log(parts: int) -> Document:
    """A document of so many chunks."""
    text = "\n\n".join(f"The lighthouse stands here, as it did at part {part} of all." for part in range(parts))
    return Document("log", text, title="A lighthouse", growing=True)


async def test_no_answer_misses_what_was_there(
    opened: tuple[VectorIndex, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, additions = opened
    monkeypatch.setattr(growing, "SEGMENTS_MAX", SEGMENTS)
    generator = random.Random(11)
    encoder = FakeEncoder()
    journal = await Journal.open()
    index = interrupted(Failing(inner, generator, Counter()), generator)
    ingestor = Ingestor(encoder, index, CHUNKER, journal, collect_after_s=SEARCH_S_MAX, retry_delays_s=(0,) * 20)
    searcher = Searcher(encoder, interrupted(inner, generator), Tokenizer.load(DEFAULT_MODEL_FOLDER))
    known = FIRST_PARTS
    assert (await ingestor.ingest(log(known))).chunk_count == known
    ended = asyncio.Event()
    answers = 0

    async def read() -> None:
        nonlocal answers
        while not ended.is_set():
            for mode in SearchMode:
                before = known
                async with asyncio.timeout(SEARCH_S_MAX):
                    hits = (await searcher.search(SearchRequest("lighthouse", mode, 200))).hits
                parts = sorted(int(hit.chunk.text.split()[-3]) for hit in hits)
                assert parts[:before] == list(range(before)), (mode, before, parts)
                assert len(parts) == len(set(parts)), (mode, parts)
                assert len(parts) <= known + ADDED_PARTS, (mode, parts)
                places = {hit.chunk.chunk_index for hit in hits}
                assert len(places) == len(hits)
                assert all(hit.chunk.generation == hit.record.generation_of(hit.chunk.chunk_index) for hit in hits)
                answers += 1

    async def collect() -> None:
        while not ended.is_set():
            await Collector(index, journal, SEARCH_S_MAX).collect()
            await asyncio.sleep(0.05)

    others = [asyncio.create_task(work) for work in (read(), read(), collect())]
    try:
        for _ in range(additions):
            receipt = await ingestor.ingest(log(known + ADDED_PARTS))
            assert receipt.outcome is Outcome.INGESTED
            known += ADDED_PARTS
            for task in others:
                if task.done():
                    task.result()
    finally:
        ended.set()
        await asyncio.gather(*others)
    await Collector(inner, journal, 0).collect(within_s=SEARCH_S_MAX)
    record = (await inner.get_records([key("log")]))[key("log")]
    assert len(record.segments) == additions % SEGMENTS + 1
    assert (await inner.stats()).chunk_count == record.chunk_count == known
    assert answers > len(SearchMode)
    await journal.close()


class Checked(MemoryIndex):
    """Sees to it, whenever anything was written or deleted, that each record's chunks are all there."""

    def check(self) -> None:
        for key_, state in self._states.items():
            if state.record:
                held = set(self._chunks.get(key_, ()))
                for part in state.record.segments:
                    places = {(part.generation, part.first_chunk + number) for number in range(part.chunk_count)}
                    assert places <= held, (state.record.segments, held)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_a_record_has_all_its_chunks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers add to one document, replace and delete it, and are cut off anywhere, under collectors."""
    monkeypatch.setattr(growing, "SEGMENTS_MAX", 4)
    generator = random.Random(seed)
    index = Checked(dimension=384, fingerprint=FINGERPRINT)
    journal = await Journal.open(lease_s=30, now=Clock())
    parts = 1

    async def work(ingestor: Ingestor) -> None:
        nonlocal parts
        for _ in range(40):
            parts = generator.choice([parts, parts + 1, parts + 2, 1 + generator.randrange(3)])
            doing = ingestor.delete("log") if generator.random() < 0.08 else ingestor.ingest(log(parts))
            timeout_s = generator.random() * 0.02 if generator.random() < 0.3 else 10
            with suppress(TimeoutError, MambaSearchError):
                await asyncio.wait_for(doing, timeout_s)
            index.check()

    async def collect() -> None:
        while True:
            await clear(interrupted(index, generator), journal)
            index.check()
            await asyncio.sleep(generator.random() * 0.01)

    workers = [
        Ingestor(
            FakeEncoder(),
            interrupted(Failing(index, generator, Counter()), generator),
            CHUNKER,
            journal,
            collect_after_s=0,
            retry_delays_s=(0,) * 20,
        )
        for _ in range(2)
    ]
    collector = asyncio.create_task(collect())
    try:
        await asyncio.gather(*map(work, workers))
    finally:
        collector.cancel()
        await asyncio.gather(collector, return_exceptions=True)
    await workers[0].ingest(log(50))
    for _ in range(2):
        await clear(index, journal)
    index.check()
    record = (await index.get_records([key("log")]))[key("log")]
    assert (await index.stats()).chunk_count == record.chunk_count == 50
    await journal.close()
