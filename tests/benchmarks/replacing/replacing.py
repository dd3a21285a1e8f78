"""A document replaced again and again under searches: each answer holds one version of it, whole, and never none.

    python -m tests.benchmarks.replacing.replacing --replacements 200

Between every two steps of the writer, the collector and the readers others may come in; batches may be applied in part,
and answers get lost. Chunks of a version that is replaced are taken away as soon as the slowest search can have ended.
The embedded engine and the client of a Qdrant server (in front of a stand-in) are tried. The last line is the figure;
the exit code is 1 where an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from encoder.errors import IndexUnavailable
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
from services.search.requests import SearchRequest
from services.search.results import SearchMode
from services.search.searcher import Searcher
from tests.benchmarks.replacing.interrupting import Failing, Interrupted
from tests.fakes import FakeEncoder
from tests.indexing import make_chunker
from tests.qdrant_over_grpc import qdrant_over_grpc

KINDS = ("engine", "server")
CHUNKS = 50
READERS = 2
SEARCH_S_MAX = 10.0  # no search here takes as long
# What a writer, a collector and a reader cannot do without.
STEPS = (
    *(f"writer: {step}" for step in ("begin", "encode_passages", "upsert_chunks", "count_chunks", "commit_record")),
    *(f"writer: {step}" for step in ("get_records", "get_fences", "flush", "finish", "under_way")),
    *(f"collector: {step}" for step in ("abandoned", "due")),
    *(f"reader: {step}" for step in ("encode_queries", "search", "read_hits", "get_records")),
)
# What comes SEARCH_S_MAX later.
LATER_STEPS = tuple(f"collector: {step}" for step in ("get_records", "delete_chunks", "flush", "collected"))
_CHUNKER = make_chunker(16)


@dataclass(slots=True)
class Found:
    """What was done, and what was wrong."""

    replaced: int = 0
    answers: int = 0
    problems: list[str] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)  # points where others could come in
    failed: Counter[str] = field(default_factory=Counter)  # writes, by how

    def never_passed(self, steps: tuple[str, ...]) -> list[str]:
        """Name the points before and after steps that nobody has come by."""
        points = [f"{step} {when}" for step in steps for when in ("begins", "ended")]
        return [point for point in points if not self.passed[point]]


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[VectorIndex]:
    """Open an index of a kind."""
    fingerprint = index_fingerprint("fake", _CHUNKER.fingerprint)
    if kind == "engine":
        index: VectorIndex = await EmbeddedIndex.open(folder, dimension=384, fingerprint=fingerprint, write_bytes_min=0)
        yield index
        await index.close()
        return
    async with qdrant_over_grpc() as address:
        index = await ServerIndex.open(address, collection="c", dimension=384, fingerprint=fingerprint)
        yield index
        await index.close()


def version(number: int) -> Document:
    """Make a version: fifty chunks, each of which says which version it is of."""
    sentences = [f"The lighthouse stands here, {number} at part {part} of all." for part in range(CHUNKS)]
    return Document("replaced", "\n\n".join(sentences), title="A lighthouse")


async def run(kind: str, replacements: int, folder: Path, seed: int = 7) -> Found:
    """Replace a document under searches, and look at every answer."""
    async with opened(kind, folder) as inner:
        found = Found()
        generator = random.Random(seed)
        journal = await Journal.open()
        try:
            await _replace(inner, journal, replacements, generator, found)
            await Collector(inner, journal, 0).collect(within_s=SEARCH_S_MAX)
            stats = await inner.stats()
            if (stats.document_count, stats.chunk_count) != (2, CHUNKS + 1):
                found.problems.append(f"{stats} is left in the end, of 2 documents and {CHUNKS + 1} chunks")
        finally:
            await journal.close()
        return found


async def _replace(
    inner: VectorIndex, journal: Journal, replacements: int, generator: random.Random, found: Found
) -> None:
    def interrupted(part: object, who: str) -> Interrupted:
        return Interrupted(part, generator, found.passed, who)

    failing = Failing(inner, generator, found.failed)
    encoder = FakeEncoder()
    ingestor = Ingestor(
        interrupted(encoder, "writer"),
        interrupted(failing, "writer"),  # type: ignore[arg-type]
        _CHUNKER,
        interrupted(journal, "writer"),  # type: ignore[arg-type]
        collect_after_s=SEARCH_S_MAX,
        retry_delays_s=(0,) * 20,
    )
    collector = Collector(
        interrupted(failing, "collector"),  # type: ignore[arg-type]
        interrupted(journal, "collector"),  # type: ignore[arg-type]
        SEARCH_S_MAX,
    )
    searcher = Searcher(
        interrupted(encoder, "reader"),
        interrupted(inner, "reader"),  # type: ignore[arg-type]
        Tokenizer.load(DEFAULT_MODEL_FOLDER),
    )
    assert len(_CHUNKER.chunk(version(0))) == CHUNKS
    await ingestor.ingest(version(0))
    await ingestor.ingest(Document("other", "A lighthouse of another island.", title="Another"))
    done = asyncio.Event()
    others = [asyncio.create_task(_read(searcher, done, found)) for _ in range(READERS)]
    others.append(asyncio.create_task(_clear(collector, done)))
    try:
        for number in range(1, replacements + 1):
            receipt = await ingestor.ingest(version(number))
            if receipt.outcome is not Outcome.INGESTED:
                found.problems.append(f"version {number} was {receipt.outcome.value}")
            found.replaced += 1
            for task in others:
                if task.done():
                    task.result()
    finally:
        done.set()
        await asyncio.gather(*others)


async def _read(searcher: Searcher, done: asyncio.Event, found: Found) -> None:
    while not done.is_set():
        for mode in SearchMode:
            async with asyncio.timeout(SEARCH_S_MAX):
                hits = (await searcher.search(SearchRequest("lighthouse", mode, 60))).hits
            chunks = [hit.chunk for hit in hits if hit.chunk.document_id == "replaced"]
            generations = {chunk.generation for chunk in chunks}
            texts = {chunk.text.split()[4] for chunk in chunks}
            if len(chunks) != CHUNKS or len(generations) != 1 or len(texts) != 1:
                found.problems.append(f"{mode.value}: {len(chunks)} chunks of generations {generations}, texts {texts}")
            found.answers += 1


async def _clear(collector: Collector, done: asyncio.Event) -> None:
    while not done.is_set():
        try:
            await collector.collect()
        except IndexUnavailable:
            continue  # as the worker does: the next round takes up what was left
        await asyncio.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replacements", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
    answers, problems = 0, 0
    for kind in KINDS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="replacing-") as folder:
            found = asyncio.run(run(kind, given.replacements, Path(folder), given.seed))
        found.problems += [f"nobody came by: {point}" for point in found.never_passed((*STEPS, *LATER_STEPS))]
        for problem in found.problems[:20]:
            print(problem)
        print(
            f"{kind}: {found.replaced} replacements, {found.answers} answers, {len(found.passed)} points between steps "
            f"passed {found.passed.total():,} times, {dict(found.failed)}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        answers += found.answers
        problems += len(found.problems)
    print(
        f"{'FAIL' if problems else 'PASS'}: {given.replacements} replacements of {CHUNKS} chunks on {len(KINDS)} "
        f"backends, {answers} answers, {problems} problems (bar 0)"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
