"""Kills parts of a node while documents are ingested, and looks whether anything was lost, doubled or left behind.

    python -m tests.benchmarks.crashes.killing --kills 200 --documents 500 --seed 1

The worker is killed at every point of ``failpoints`` in turn, the others and the whole node at points and moments drawn
at random. A client sends versions of documents all the while, and again what has no receipt. The last line is the
figure; the exit code is 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.fingerprint import index_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.documents import DEFAULT_TENANT
from ingest.index.interface import VectorIndex
from ingest.index.remote import RemoteIndex
from services.searcher import Searcher, SearchMode
from tests.benchmarks.crashes.failpoints import ARMED, HIT, POINTS
from tests.benchmarks.crashes.node import PARTS, Node
from tests.fakes import FakeEncoder

DELETED_SHARE = 0.15  # of new versions
POINT_TIMEOUT_S = 3.0  # for a point to be reached, before the kill comes at whatever point it is
SETTLE_TIMEOUT_S = 120.0
_STREAM_DOCUMENTS = 40


@dataclass(slots=True)
class Source:
    """What a client wants to be in the index: the newest version of each document, and what was acknowledged."""

    documents: int
    random: random.Random
    wanted: dict[str, int] = field(default_factory=dict)  # document_id -> version; below 0 where it is to be deleted
    acknowledged: dict[str, int] = field(default_factory=dict)
    receipts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.wanted = {f"document-{number}": 1 for number in range(self.documents)}

    def missing(self) -> list[str]:
        """Name the documents whose newest version has no receipt."""
        return [name for name, version in self.wanted.items() if self.acknowledged.get(name) != version]

    def next_documents(self) -> list[tuple[str, int]]:
        """Choose what to send: what is missing, and else new versions of some."""
        missing = self.missing()
        if len(missing) < _STREAM_DOCUMENTS:
            for name in self.random.sample(list(self.wanted), min(_STREAM_DOCUMENTS, self.documents)):
                version = abs(self.wanted[name]) + 1
                self.wanted[name] = -version if self.random.random() < DELETED_SHARE else version
            missing = self.missing()
        chosen = self.random.sample(missing, min(_STREAM_DOCUMENTS, len(missing)))
        return [(name, self.wanted[name]) for name in chosen]

    def text(self, name: str, version: int) -> str:
        """Write a version: some chunks, all of which say whose and which they are; one that grows adds a few."""
        number = int(name.rpartition("-")[2])
        if grows(name):
            words = f"The {word(name)} adds to its log, as it does each night, part"
            return "\n\n".join(f"{words} {part}." for part in range(3 * version + number % 5))
        words = f"The {word(name)} of version v{version}x keeps its lamp lit through the night, part"
        return "\n\n".join(f"{words} {part}." for part in range(1 + (7 * number + 5 * version) % 60))


def grows(name: str) -> bool:
    """Say whether a document's versions each begin with the one before, as every third does."""
    return int(name.rpartition("-")[2]) % 3 == 0


def word(name: str) -> str:
    """Give a document's own word, which no other one has."""
    return f"lamp{name.rpartition('-')[2]}keeper"


async def send(source: Source, target: str, done: asyncio.Event) -> None:
    """Keep sending, through all failures, until ``done`` and nothing is missing."""
    while not (done.is_set() and not source.missing()):
        documents = source.next_documents() if not done.is_set() else [(n, source.wanted[n]) for n in source.missing()]
        versions = dict(documents)

        async def requests(sent: list[tuple[str, int]]) -> AsyncIterator[ingest_pb2.IngestDocumentsRequest]:
            for name, version in sent:
                yield ingest_pb2.IngestDocumentsRequest(
                    document_id=name, text=source.text(name, version), growing=grows(name)
                )

        with contextlib.suppress(grpc.aio.AioRpcError):
            async with grpc.aio.insecure_channel(target) as channel:
                stub = ingest_pb2_grpc.IngestServiceStub(channel)
                sent = [item for item in documents if item[1] > 0]
                async for answer in stub.IngestDocuments(requests(sent), timeout=60):
                    source.receipts[ingest_pb2.IngestOutcome.Name(answer.outcome)] += 1
                    if answer.outcome in (ingest_pb2.INGEST_OUTCOME_INGESTED, ingest_pb2.INGEST_OUTCOME_UNCHANGED):
                        source.acknowledged[answer.document_id] = versions[answer.document_id]
                for name, version in documents:
                    if version < 0:
                        await delete(source, stub, name, version)
        await asyncio.sleep(0.05)


async def delete(source: Source, stub: ingest_pb2_grpc.IngestServiceStub, name: str, version: int) -> None:
    """Delete a document. One that is not there has been deleted before, without our hearing of it."""
    try:
        await stub.DeleteDocument(ingest_pb2.DeleteDocumentRequest(document_id=name), timeout=60)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
    source.acknowledged[name] = version
    source.receipts["deleted"] += 1


async def kill(node: Node, generator: random.Random, point: str | None, victims: tuple[str, ...]) -> str:
    """Kill parts, where the worker reaches a point, or at a random moment; start them again. Say where it was."""
    where = "at a random moment"
    if point is None:
        await asyncio.sleep(generator.random() * 0.5)
    else:
        (node.folder / ARMED).write_text(point)
        hit = node.folder / HIT
        ends = time.monotonic() + POINT_TIMEOUT_S
        while not hit.exists() and time.monotonic() < ends:  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.002)
        if hit.exists():
            where = point
    for part in victims:
        node.kill(part)
    for file in (ARMED, HIT):
        (node.folder / file).unlink(missing_ok=True)
    node.go_on("worker")
    await asyncio.sleep(generator.random() * 0.3)
    for part in victims:
        node.start(part)
    return where


def plan(kills: int, generator: random.Random) -> list[tuple[str | None, tuple[str, ...]]]:
    """Choose where and what to kill: the worker at every point in turn, half of the kills; the others at random."""
    found: list[tuple[str | None, tuple[str, ...]]] = []
    for number in range(kills):
        if number % 2 == 0:
            found.append((POINTS[(number // 2) % len(POINTS)], ("worker",)))
            continue
        victims = generator.choice([("worker",), ("index",), ("encoder",), PARTS])
        found.append((generator.choice([None, *POINTS]), victims))
    return found


async def run(kills: int, documents: int, seed: int, folder: Path) -> list[str]:
    """Kill as planned, let everything settle, and say what is wrong."""
    generator = random.Random(seed)
    source = Source(documents, random.Random(seed + 1))
    node = Node(folder)
    places: Counter[str] = Counter()
    done = asyncio.Event()
    try:
        for part in PARTS:
            node.start(part)
        sending = asyncio.create_task(send(source, node.target("worker"), done))
        await _until(lambda: len(source.acknowledged) >= min(documents, _STREAM_DOCUMENTS), "the first documents")
        for number, (point, victims) in enumerate(plan(kills, generator), start=1):
            where = await kill(node, generator, point, victims)
            places["at a point" if where == point else "elsewhere"] += 1
            print(f"{number}: {'+'.join(victims)} {where}; receipts {source.receipts.total():,}", flush=True)
            acknowledged = source.receipts.total()
            # Some work between kills, or it would all be starting again.
            await _until(lambda: source.receipts.total() > acknowledged, "a receipt after a kill")  # noqa: B023
        done.set()
        await asyncio.wait_for(sending, SETTLE_TIMEOUT_S)
        problems = [f"{part} ended by itself (exit code {code})" for part, code in node.exited().items()]
        problems += await check(source, node)
    finally:
        node.close()
    print(f"kills {dict(places)}; receipts {dict(source.receipts)}; documents {documents}")
    return problems


async def check(source: Source, node: Node) -> list[str]:
    """Look at the index through the search that users have."""
    chunker = Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    fingerprint = index_fingerprint("fake", chunker.fingerprint)
    index = await RemoteIndex.connect(node.target("index"), dimension=384, fingerprint=fingerprint)
    try:
        searcher = Searcher(FakeEncoder(), index, Tokenizer.load(DEFAULT_MODEL_FOLDER))
        problems = []
        expected = 0
        for name, version in source.wanted.items():
            expected += 1
            hits = (await searcher.search(word(name), SearchMode.SPARSE, 50)).hits
            found = {(hit.chunk.document_id, hit.chunk.generation, hit.chunk.chunk_index) for hit in hits}
            texts = " ".join(hit.chunk.text for hit in sorted(hits, key=lambda hit: hit.chunk.chunk_index))
            if version < 0:
                if hits:
                    problems.append(f"{name} was deleted, and is there")
                continue
            whole = source.text(name, version).split()
            if texts.split() != whole or len(found) != len(hits) or {hit.chunk.document_id for hit in hits} != {name}:
                problems.append(f"{name} is not there once in version {version}: {len(hits)} chunks, {texts[:80]!r}")
        if len(source.acknowledged) != expected:
            problems.append(f"{len(source.acknowledged)} documents have receipts, {expected} were sent")
        problems += await _leftovers(index)
    finally:
        await index.close()
    return problems


async def _leftovers(index: VectorIndex) -> list[str]:
    """Wait until everything is cleared away, and say what is not."""
    ends = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        chunks, token = 0, ""
        while True:
            records, token = await index.list_records(DEFAULT_TENANT, token, 200)
            chunks += sum(record.chunk_count for record in records)
            if not token:
                break
        there = (await index.stats()).chunk_count
        if there == chunks:
            return []
        if time.monotonic() > ends:
            return [f"the index holds {there} chunks, its documents have {chunks}"]
        await asyncio.sleep(0.5)


async def _until(reached: object, what: str) -> None:
    ends = time.monotonic() + SETTLE_TIMEOUT_S
    while not reached():  # type: ignore[operator]
        if time.monotonic() > ends:
            raise TimeoutError(f"no {what} within {SETTLE_TIMEOUT_S:.0f} s")
        await asyncio.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crashes-") as folder:
        problems = asyncio.run(run(given.kills, given.documents, given.seed, Path(folder)))
    for problem in problems[:20]:
        print(problem)
    verdict = "FAIL" if problems else "PASS"
    print(f"{verdict}: {given.kills} kills over {given.documents} documents, {len(problems)} problems (bar 0)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
