"""What ingestion costs beside the engine: chunks a second of the pipeline with a zero-cost encoder, and of raw upserts.

    python -m tests.benchmarks.ingest_speed [--chunks 100000] [--again 2000]

The same chunks, with the same vectors, go into two embedded indexes on this machine: as upserts of ready points, one
batch after another, and as documents through reading, cutting, journal, BM25, upserts, counts and commits. Then some
documents come again, unchanged. The last line is the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from encoder.fingerprint import index_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.cutting.processes import CuttingProcesses
from ingest.documents import DEFAULT_TENANT
from ingest.index.embedded import EmbeddedIndex
from ingest.index.fields import make_fields
from ingest.index.interface import BATCH_CHUNKS_MAX, IndexedChunk, StoredChunk
from ingest.journal import Journal, journal_url
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from ingest.sparse import sparse_passage
from tests.benchmarks.zero_cost import DIMENSION, ZeroCostEncoder, make_documents

RATIO_MIN = 0.5
BATCH_TOKENS = 32_768  # for an encoder that is faster than a CPU
AGAIN_S_MAX = 10.0
PARAGRAPHS = 16  # of a document


async def raw(folder: Path, chunker: Chunker, count: int) -> float:
    """Upsert ready points; chunks a second."""
    points: list[IndexedChunk] = []
    table = (await ZeroCostEncoder().encode_passages([""] * 1024)).embeddings
    for document in make_documents(count, PARAGRAPHS):
        fields = make_fields(document.title, document.source, document.metadata, datetime.now(UTC))
        for chunk in chunker.chunk(document):
            stored = StoredChunk(
                DEFAULT_TENANT,
                document.document_id,
                1,
                chunk.chunk_index,
                chunk.char_start,
                chunk.char_end,
                chunk.line_start,
                chunk.line_end,
                chunk.headings,
                chunk.token_count,
                chunk.text,
            )
            sparse = sparse_passage(chunker.passage(document, chunk))
            points.append(IndexedChunk(stored, table[len(points) % 1024], sparse, fields))
    index = await EmbeddedIndex.open(folder, dimension=DIMENSION, fingerprint="raw", optimize_points_min=1 << 40)
    started = time.perf_counter()
    for start in range(0, len(points), BATCH_CHUNKS_MAX):
        await index.upsert_chunks(points[start : start + BATCH_CHUNKS_MAX])
    await index.flush()
    seconds = time.perf_counter() - started
    await index.close()
    print(f"raw upserts: {len(points):,} chunks in {seconds:.1f} s, {len(points) / seconds:,.0f} chunks/s")
    return len(points) / seconds


async def pipeline(folder: Path, chunker: Chunker, count: int, again: int) -> tuple[float, float]:
    """Ingest documents, then some again: chunks a second, and the seconds of the second time."""
    encoder = ZeroCostEncoder()
    fingerprint = index_fingerprint("zero", chunker.fingerprint)
    index = await EmbeddedIndex.open(folder, dimension=DIMENSION, fingerprint=fingerprint, optimize_points_min=1 << 40)
    journal = await Journal.open(journal_url(folder))
    cutter = CuttingProcesses(DEFAULT_MODEL_FOLDER, chunker, 1)
    ingestor = Ingestor(encoder, index, chunker, journal, cutter=cutter, batch_tokens_max=BATCH_TOKENS)  # type: ignore[arg-type]
    started = time.perf_counter()
    chunks = 0
    async for receipt in ingestor.ingest_all(make_documents(count, PARAGRAPHS)):
        assert receipt.outcome is Outcome.INGESTED, receipt
        chunks += receipt.chunk_count
    seconds = time.perf_counter() - started
    print(f"pipeline: {chunks:,} chunks in {seconds:.1f} s, {chunks / seconds:,.0f} chunks/s")
    calls, started = encoder.calls, time.perf_counter()
    async for receipt in ingestor.ingest_all(make_documents(again, PARAGRAPHS)):
        assert receipt.outcome is Outcome.UNCHANGED, receipt
    again_s = time.perf_counter() - started
    print(f"the same {again:,} documents again: {again_s:.1f} s, {encoder.calls - calls} calls of the encoder")
    assert encoder.calls == calls
    await cutter.close()
    await journal.close()
    await index.close()
    return chunks / seconds, again_s


async def measure(chunks: int, again: int) -> int:
    """Run both, and judge."""
    chunker = Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    sample = list(make_documents(20, PARAGRAPHS))
    count = max(again, round(chunks * len(sample) / sum(len(chunker.chunk(document)) for document in sample)))
    with tempfile.TemporaryDirectory(prefix="ingest-speed-") as folder:
        upserts = await raw(Path(folder) / "raw", chunker, count)
        ingested, again_s = await pipeline(Path(folder) / "pipeline", chunker, count, again)
    ratio = ingested / upserts
    passed = ratio >= RATIO_MIN and again_s <= AGAIN_S_MAX
    verdict = "PASS" if passed else "FAIL"
    print(
        f"{verdict}: pipeline at {ratio:.2f} of raw upserts (bar {RATIO_MIN}), {again:,} documents again in "
        f"{again_s:.1f} s (bar {AGAIN_S_MAX:.0f})"
    )
    return 0 if passed else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--again", type=int, default=2000)
    given = parser.parse_args()
    return asyncio.run(measure(given.chunks, given.again))


if __name__ == "__main__":
    sys.exit(main())
