"""Fails unless sparse search here agrees with bm25s (k1 0.9, b 0.4, stemmed) on evaluation sets in BEIR layout.

    python tests/benchmarks/compare_bm25.py FOLDER…      (sets, or folders of sets)

Each set goes through the real chunker, term weights and embedded index, without an encoder; a document's score is its
best chunk's. Two bars, both 0.02 nDCG@10: against bm25s over the very same passages the difference may be no larger
either way; against bm25s over whole documents sparse search may be no worse (it is often better: on long documents the
best chunk tells more than the whole). The last line is the figure.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from encoder.evaluation.datasets import EvaluationSet, load_evaluation_set
from encoder.evaluation.metrics import measure
from encoder.evaluation.runs import Run, rank_documents
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import (
    BATCH_CHUNKS_MAX,
    DEFAULT_TENANT,
    LIMIT_MAX,
    DocumentRecord,
    IndexedChunk,
    Scope,
    StoredChunk,
)
from ingest.sparse import sparse_passage, sparse_query
from services.evaluation.bm25 import run_bm25s

DIFFERENCE_MAX = 0.02
DOCUMENTS_MAX = 100


@dataclass(frozen=True)
class Comparison:
    """nDCG@10 of one set."""

    name: str
    product: float
    passages: float  # bm25s over the same passages
    documents: float  # bm25s over whole documents

    @property
    def agrees(self) -> bool:
        same = abs(self.product - self.passages) <= DIFFERENCE_MAX
        return same and self.product >= self.documents - DIFFERENCE_MAX


def cut(dataset: EvaluationSet, chunker: Chunker) -> tuple[list[StoredChunk], list[str]]:
    """Every chunk of a set, and its passage."""
    chunks, passages = [], []
    for found in dataset.documents:
        document = Document(document_id=found.document_id, title=found.title, text=found.text)
        for chunk in chunker.chunk(document):
            place = (chunk.chunk_index, chunk.char_start, chunk.char_end, 1, 1, (), chunk.token_count)
            chunks.append(StoredChunk(DEFAULT_TENANT, found.document_id, 1, *place, chunk.text))
            passages.append(chunker.passage(document, chunk))
    return chunks, passages


async def run_product(dataset: EvaluationSet, chunks: Sequence[StoredChunk], passages: Sequence[str]) -> Run:
    """Answer the queries with the embedded index; its embeddings are all the same and not asked."""
    nothing = np.ones(1, dtype=np.float32)
    points = [
        IndexedChunk(chunk, nothing, sparse_passage(passage)) for chunk, passage in zip(chunks, passages, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        index = await EmbeddedIndex.open(Path(folder), dimension=1, fingerprint="compare_bm25")
        for start in range(0, len(points), BATCH_CHUNKS_MAX):
            await index.upsert_chunks(points[start : start + BATCH_CHUNKS_MAX])
        for document_id, count in Counter(chunk.document_id for chunk in chunks).items():
            counts = (count, 0, 0)
            record = DocumentRecord(DEFAULT_TENANT, document_id, "", "", {}, 1, *counts, "", "", datetime.now(UTC))
            await index.commit_record(record)
        run = {}
        for query_id, text in dataset.queries.items():
            hits = (await index.search(None, sparse_query(text), LIMIT_MAX, Scope())).sparse
            run[query_id] = rank_documents(((hit.chunk.document_id, hit.score) for hit in hits), DOCUMENTS_MAX)
        await index.close()
    return run


def compare(folder: Path) -> Comparison:
    """Measure one set all three ways."""
    dataset = load_evaluation_set(folder)
    chunks, passages = cut(dataset, Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER)))
    whole = [f"{document.title} {document.text}".strip() for document in dataset.documents]
    runs = (
        asyncio.run(run_product(dataset, chunks, passages)),
        run_bm25s(dataset.queries, [chunk.document_id for chunk in chunks], passages, DOCUMENTS_MAX),
        run_bm25s(dataset.queries, [document.document_id for document in dataset.documents], whole, DOCUMENTS_MAX),
    )
    return Comparison(dataset.name, *(measure(dataset.qrels, run).mean("ndcg@10") for run in runs))


def main(arguments: Sequence[str]) -> int:
    folders = [Path(argument) for argument in arguments]
    sets = [
        found for folder in folders for found in ([folder] if (folder / "qrels.tsv").exists() else folder.iterdir())
    ]
    if not sets:
        print("give at least one folder in BEIR layout")
        return 2
    print(f"{'nDCG@10':24}{'product':>9}{'bm25s, passages':>17}{'bm25s, documents':>18}")
    results = []
    for folder in sorted(sets):
        found = compare(folder)
        results.append(found)
        print(f"{found.name:24}{found.product:9.4f}{found.passages:17.4f}{found.documents:18.4f}", flush=True)
    failures = [found.name for found in results if not found.agrees]
    apart = max(abs(found.product - found.passages) for found in results)
    below = max(found.documents - found.product for found in results)
    verdict = "FAIL: " + ", ".join(failures) if failures else "PASS"
    print(
        f"{verdict}: over {len(results)} sets at most {apart:.4f} from bm25s on the same passages, and at most "
        f"{max(below, 0):.4f} below bm25s on whole documents (bar {DIFFERENCE_MAX})"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
