"""What appending costs: a document of 200K tokens in the default model's hands, and one percent more of it.

    python tests/benchmarks/append_cost.py [--tokens 200000] [--encoding one-pass --encoding alone]

The document is ingested into an embedded index on this machine, then again with one percent added, and that version
once more into an empty index, from its beginning: the seconds of adding are compared with those of ingesting anew. In
one pass the new chunks' embeddings are compared with those of the whole read in one go. All in float32, in which
results agree closely; it is slower than bfloat16 in both alike. The last line is the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.checkpoint import load_model
from encoder.evaluation.datasets import load_evaluation_set
from encoder.fingerprint import index_fingerprint, model_fingerprint
from encoder.local import LocalEncoder
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from ingest.chunk_encoding import ChunkedDocument, make_chunk_encoder
from ingest.chunk_rules import ChunkEncoding
from ingest.chunking import Chunker
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import DocumentRecord, IndexedChunk
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from ingest.states import open_states
from services.in_process import open_journal

RATIO_MAX = 0.05
DIFFERENCE_MAX = 1e-4
ADDED = 0.01
TEXTS = Path("encoder/evaluation/datasets/squad_xquad_en")


@dataclass(frozen=True)
class Model:
    encoder: LocalEncoder
    tokenizer: Tokenizer
    dimension: int
    fingerprint: str


class RecordingIndex(EmbeddedIndex):
    """Remembers the embeddings of what is written."""

    written: list[IndexedChunk]

    async def upsert_chunks(self, chunks: list[IndexedChunk]) -> None:  # type: ignore[override]
        self.written += chunks
        await super().upsert_chunks(chunks)


def make_text(tokenizer: Tokenizer, tokens: int) -> str:
    """Join paragraphs of the set that ships, in an order of their own each time, to about so many tokens."""
    paragraphs = [document.text for document in load_evaluation_set(TEXTS).documents]
    counts = [tokenizer.count(paragraph) for paragraph in paragraphs]
    generator = np.random.default_rng(0)
    chosen: list[str] = []
    total = 0
    while total < tokens:
        for place in generator.permutation(len(paragraphs)).tolist():
            chosen.append(paragraphs[place])
            total += counts[place]
            if total >= tokens:
                break
    return "\n\n".join(chosen)


@asynccontextmanager
async def ingesting(
    folder: Path, model: Model, encoding: ChunkEncoding
) -> AsyncIterator[tuple[Ingestor, RecordingIndex]]:
    """Open everything that ingestion needs, in an empty folder."""
    chunker, chunk_encoder = Chunker(model.tokenizer), make_chunk_encoder(encoding, model.tokenizer)
    fingerprint = index_fingerprint(model.fingerprint, chunk_encoder.fingerprint(chunker.fingerprint))
    index = await RecordingIndex.open(folder, dimension=model.dimension, fingerprint=fingerprint)
    index.written = []
    states = open_states(folder, bytes_max=1 << 30, keep_s=3600)
    try:
        async with open_journal(folder, index) as journal:
            yield Ingestor(model.encoder, index, chunker, journal, chunk_encoder=chunk_encoder, states=states), index
    finally:
        await index.close()


async def timed(ingestor: Ingestor, document: Document) -> float:
    """Ingest a document; seconds."""
    started = time.perf_counter()
    receipt = await ingestor.ingest(document)
    seconds = time.perf_counter() - started
    assert receipt.outcome is Outcome.INGESTED, receipt
    print(f"  {receipt.token_count:,} tokens in {receipt.chunk_count:,} chunks: {seconds:.2f} s", flush=True)
    return seconds


async def read_in_one_go(
    model: Model, document: Document, index: EmbeddedIndex, record: DocumentRecord
) -> NDArray[np.float32]:
    """Embed all chunks of a version, cut as they are in the index, in one pass from the beginning: ``(n, d)``."""
    texts = []
    for segment in record.segments:
        for first in range(segment.first_chunk, segment.first_chunk + segment.chunk_count, 1000):
            last = min(first + 999, segment.first_chunk + segment.chunk_count - 1)
            texts += [chunk.text for chunk in await index.get_chunks(record.key, segment.generation, first, last)]
    assert len(texts) == record.chunk_count
    chunks = make_chunk_encoder("one-pass", model.tokenizer)
    return await chunks.encode(model.encoder, [ChunkedDocument(document.title, texts)])


async def measure(model: Model, encoding: ChunkEncoding, first: Document, second: Document) -> tuple[float, float]:
    """Give the ratio of the costs, and the largest difference of an embedding (0 where chunks are encoded alone)."""
    difference = 0.0
    print(f"{encoding}:")
    with tempfile.TemporaryDirectory(prefix="append-cost-") as folder:
        async with ingesting(Path(folder) / "grown", model, encoding) as (ingestor, index):
            await timed(ingestor, first)
            index.written.clear()
            adding_s = await timed(ingestor, second)
            (record,) = (await index.list_records(second.tenant, "", 10))[0]
            assert [segment.chunk_count for segment in record.segments][1:] == [len(index.written)], record
            added = np.stack([chunk.embedding for chunk in index.written])
            if encoding == "one-pass":
                whole = await read_in_one_go(model, second, index, record)
                difference = float(np.abs(whole[-len(added) :] - added).max())
        async with ingesting(Path(folder) / "anew", model, encoding) as (ingestor, _):
            anew_s = await timed(ingestor, second)
    print(f"  adding {adding_s:.2f} s, anew {anew_s:.2f} s: {adding_s / anew_s:.1%}", flush=True)
    return adding_s / anew_s, difference


async def run(tokens: int, encodings: list[ChunkEncoding]) -> int:
    """Measure each way of encoding, and judge."""
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    weights = load_model(DEFAULT_MODEL_FOLDER, "cpu", torch.float32)
    fingerprint = model_fingerprint(DEFAULT_MODEL_FOLDER)
    encoder = LocalEncoder(TextEncoder(weights, tokenizer, fingerprint, torch.float32))
    model = Model(encoder, tokenizer, (await encoder.info()).dimension, fingerprint)
    text = make_text(tokenizer, round(tokens * (1 + ADDED)))
    cut = round(len(text) / (1 + ADDED))
    second = Document("log", text, title="A log that grows", growing=True)
    first = replace(second, text=text[:cut])
    try:
        await encoder.encode_passages(["The first call prepares the products."])
        found = {encoding: await measure(model, encoding, first, second) for encoding in encodings}
    finally:
        await encoder.close()
    ratio, difference = max(ratio for ratio, _ in found.values()), max(each for _, each in found.values())
    passed = ratio < RATIO_MAX and difference <= DIFFERENCE_MAX
    ratios = ", ".join(f"{encoding} {ratio:.1%}" for encoding, (ratio, _) in found.items())
    print(
        f"{'PASS' if passed else 'FAIL'}: adding {ADDED:.0%} to {tokens:,} tokens costs of ingesting anew: {ratios} "
        f"(bar {RATIO_MAX:.0%}); new embeddings differ from one pass by {difference:.1e} (bar {DIFFERENCE_MAX:.0e})"
    )
    return 0 if passed else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--encoding", choices=["one-pass", "alone"], action="append")
    given = parser.parse_args()
    return asyncio.run(run(given.tokens, given.encoding or ["one-pass", "alone"]))


if __name__ == "__main__":
    sys.exit(main())
