"""A document replaced again and again under searches: each answer holds one version of it, whole, and never none.

Between every two steps of the writer, the collector and the readers others may come in; server batches may be applied
in part and fail. Chunks of a version that is replaced are taken away as soon as the slowest search can have ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from encoder.fingerprint import index_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.collecting import Collector
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.index.server import ServerIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from services.searcher import Searcher, SearchMode
from tests.fakes import FakeEncoder
from tests.indexing import make_chunker
from tests.interrupted import Interrupted
from tests.qdrant_over_grpc import qdrant_over_grpc

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

CHUNKER = make_chunker(16)
CHUNKS = 50
# The stand-in for a server filters in Python: each version that is not yet collected slows it down.
REPLACEMENTS = {"engine": 200, "server": 20}
READERS = 2
SEARCH_S_MAX = 20.0  # no search of this test takes as long


Open = Callable[[int, str], Awaitable[VectorIndex]]


@pytest.fixture(params=list(REPLACEMENTS))
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[VectorIndex, int]]:
    """An index, and how often the document is replaced in it."""
    fingerprint = index_fingerprint("fake", CHUNKER.fingerprint)
    async with AsyncExitStack() as stack:
        if request.param == "engine":
            index: VectorIndex = await EmbeddedIndex.open(
                tmp_path, dimension=384, fingerprint=fingerprint, write_bytes_min=0
            )
        else:
            address = await stack.enter_async_context(qdrant_over_grpc())
            index = await ServerIndex.open(address, collection="c", dimension=384, fingerprint=fingerprint)
        stack.push_async_callback(index.close)
        yield index, REPLACEMENTS[request.param]


def version(number: int) -> Document:
    """Make a version: fifty chunks, each of which says which version it is of."""
    sentences = [f"The lighthouse stands here, {number} at part {part} of all." for part in range(CHUNKS)]
    return Document("replaced", "\n\n".join(sentences), title="A lighthouse")


async def test_no_answer_mixes_versions_or_misses_the_document(opened: tuple[VectorIndex, int]) -> None:
    inner, replacements = opened
    generator = random.Random(7)
    encoder = FakeEncoder()
    journal = await Journal.open()
    index = Interrupted(inner, generator, fails=True)
    ingestor = Ingestor(encoder, index, CHUNKER, journal, collect_after_s=SEARCH_S_MAX, retry_delays_s=(0,) * 20)
    searcher = Searcher(encoder, Interrupted(inner, generator, fails=False), Tokenizer.load(DEFAULT_MODEL_FOLDER))
    assert len(CHUNKER.chunk(version(0))) == CHUNKS
    await ingestor.ingest(version(0))
    await ingestor.ingest(Document("other", "A lighthouse of another island.", title="Another"))
    replaced = asyncio.Event()
    answers = 0

    async def read() -> None:
        nonlocal answers
        while not replaced.is_set():
            for mode in SearchMode:
                async with asyncio.timeout(SEARCH_S_MAX):
                    hits = (await searcher.search("lighthouse", mode, 60)).hits
                found = [hit.chunk for hit in hits if hit.chunk.document_id == "replaced"]
                assert len(found) == CHUNKS, (mode, len(found))
                assert len({chunk.generation for chunk in found}) == 1
                assert len({chunk.text.split()[4] for chunk in found}) == 1, "texts of two versions"
                answers += 1

    async def clear() -> None:
        while not replaced.is_set():
            await Collector(index, journal, SEARCH_S_MAX).collect()
            await asyncio.sleep(0.05)

    others = [asyncio.create_task(read()) for _ in range(READERS)] + [asyncio.create_task(clear())]
    try:
        for number in range(1, replacements + 1):
            receipt = await ingestor.ingest(version(number))
            assert receipt.outcome is Outcome.INGESTED
            for task in others:
                if task.done():
                    task.result()
    finally:
        replaced.set()
        await asyncio.gather(*others)
    await Collector(inner, journal, 0).collect(within_s=SEARCH_S_MAX)
    stats = await inner.stats()
    assert (stats.document_count, stats.chunk_count) == (2, CHUNKS + 1)
    assert answers > READERS * len(SearchMode)
    await journal.close()
