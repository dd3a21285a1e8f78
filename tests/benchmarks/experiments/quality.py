"""How good a model's vectors are at finding documents: the chunks of a set, a run by best chunk, nDCG@10.

The product's chunker and encoder, but arrays in place of an index: this needs torch and ir-measures, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.document_slices import TokenIds
from encoder.evaluation.datasets import EvaluationSet
from encoder.evaluation.metrics import CUTOFF_MAX, measure
from encoder.evaluation.results import Chunks
from encoder.evaluation.runs import RankedDocument, Run
from encoder.evaluation.significance import confidence_interval
from encoder.passage_text import passage_title
from encoder.text_encoder import BATCH_SIZE_MAX, TextEncoder
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.documents import Document

Ids = NDArray[np.int64]
Embeddings = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """A document as token ids: its title, and its chunks."""

    document_id: str
    title: NDArray[np.int32]
    chunks: list[NDArray[np.int32]]

    def alone(self) -> list[NDArray[np.int32]]:
        """Give each chunk as a passage of its own, with the title."""
        return [np.concatenate([self.title, chunk]) for chunk in self.chunks]

    def stream(self, way: Chunks) -> tuple[Ids, Ids]:
        """Give the ids ``(l,)`` that are read in one pass, and where each chunk ends ``(n,)``.

        For a vector each they are the passages one after another, for one vector the title and the whole text.
        """
        rows = self.alone() if way is Chunks.ONE_PASS else [np.concatenate([self.title, *self.chunks])]
        return np.concatenate(rows, dtype=np.int64), np.cumsum([len(row) for row in rows])


def chunk_documents(found: EvaluationSet, tokenizer: Tokenizer) -> list[ChunkedDocument]:
    """Cut all documents of a set, on all cores."""
    chunker = Chunker(tokenizer)
    documents = [Document(row.document_id, row.text, title=row.title) for row in found.documents]
    with ThreadPoolExecutor() as pool:
        cut = list(pool.map(chunker.chunk, documents))
    titles = tokenizer.encode_batch([passage_title(tokenizer, document.title) for document in documents])
    texts = iter(tokenizer.encode_batch([chunk.text for chunks in cut for chunk in chunks]))
    return [
        ChunkedDocument(document.document_id, title, [next(texts) for _ in chunks])
        for document, title, chunks in zip(documents, titles, cut, strict=True)
    ]


def embed_passages(encoder: TextEncoder, passages: Sequence[TokenIds]) -> Embeddings:
    """Embed token ids, ``(n, d)``; those of like length together."""
    order = sorted(range(len(passages)), key=lambda number: len(passages[number]))
    embeddings = np.empty((len(passages), encoder.info.dimension), np.float32)
    for start in range(0, len(order), BATCH_SIZE_MAX):
        numbers = order[start : start + BATCH_SIZE_MAX]
        embeddings[numbers] = encoder.encode_tokenized_passages([passages[number] for number in numbers]).embeddings
    return embeddings


def embed_queries(encoder: TextEncoder, queries: Sequence[str]) -> Embeddings:
    """Embed queries, ``(q, d)``."""
    batches = [queries[start : start + BATCH_SIZE_MAX] for start in range(0, len(queries), BATCH_SIZE_MAX)]
    return np.concatenate([encoder.encode_queries(batch).embeddings for batch in batches])


def score_documents(queries: Embeddings, vectors: Embeddings, counts: Sequence[int]) -> Embeddings:
    """Score documents by their best vector, ``(q, documents)``; ``counts`` says how many each has, in order."""
    starts = np.cumsum([0, *counts[:-1]])
    best: Embeddings = np.maximum.reduceat(queries @ vectors.T, starts, axis=1)
    return best


def add_row(results: Path, row: Mapping[str, object]) -> None:
    """Print a measurement, and write it to the end of a file."""
    line = json.dumps(row)
    print(line, flush=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def ndcg(
    found: EvaluationSet, queries: Embeddings, vectors: Embeddings, counts: Sequence[int]
) -> dict[str, float | list[float]]:
    """Measure nDCG@10, with its 95 % interval over the queries."""
    scores = score_documents(queries, vectors, counts)
    places = np.argsort(-scores, axis=1, kind="stable")[:, :CUTOFF_MAX]
    run: Run = {
        query_id: [RankedDocument(found.documents[place].document_id, float(row[place])) for place in best]
        for query_id, row, best in zip(found.queries, scores, places, strict=True)
    }
    metrics = measure(found.qrels, run)
    low, high = confidence_interval(metrics.values["ndcg@10"])
    return {"ndcg@10": round(metrics.mean("ndcg@10"), 5), "interval": [round(low, 5), round(high, 5)]}
