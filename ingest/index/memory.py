"""The index as arrays in this process: exact, gone with the process. Fulfils ``VectorIndex``.

Made for measuring: every chunk is scored for every query, no hit travels through an engine, and nothing is written. Its
answers are the embedded engine's (a test asks both), as long as that one is exact, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.index import points
from ingest.index.interface import DocumentRecord, IndexedChunk, IndexHit, IndexStats, SparseVector, StoredChunk

_SCORES_AT_ONCE = 1 << 25

_Place = tuple[int, int]  # generation, chunk_index


class MemoryIndex:
    """Keeps chunks as they come, and lays them out as arrays when a search follows a write."""

    def __init__(self, *, dimension: int, fingerprint: str) -> None:
        self.dimension = dimension
        self.fingerprint = fingerprint
        self._chunks: dict[str, dict[_Place, IndexedChunk]] = {}  # document_id -> its chunks
        self._records: dict[str, DocumentRecord] = {}
        self._arrays: _Arrays | None = None  # of the chunks as they are now

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Keep chunks."""
        points.check_batch(chunks, self.dimension)
        for indexed in chunks:
            chunk = indexed.chunk
            self._chunks.setdefault(chunk.document_id, {})[chunk.generation, chunk.chunk_index] = indexed
        self._arrays = None

    async def count_chunks(self, document_id: str, generation: int) -> int:
        """Count the chunks of one generation."""
        return sum(place[0] == generation for place in self._chunks.get(document_id, ()))

    async def commit_record(self, record: DocumentRecord) -> None:
        """Keep a document's record."""
        self._records[record.document_id] = record

    async def get_records(self, document_ids: Sequence[str]) -> dict[str, DocumentRecord]:
        """Read the records of the documents that exist."""
        points.check_read("document_ids", len(document_ids))
        return {name: self._records[name] for name in document_ids if name in self._records}

    async def get_chunks(self, document_id: str, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks ``first`` to ``last`` that exist, in order."""
        points.check_read("last", last - first + 1)
        chunks = self._chunks.get(document_id, {})
        found = (chunks.get((generation, number)) for number in range(first, last + 1))
        return [indexed.chunk for indexed in found if indexed]

    async def delete_generations(self, document_id: str, *, keep: int) -> int:
        """Forget the chunks of all generations of a document but one."""
        chunks = self._chunks.get(document_id, {})
        kept = {place: indexed for place, indexed in chunks.items() if place[0] == keep}
        if len(kept) < len(chunks):
            self._chunks[document_id] = kept
            self._arrays = None
        return len(chunks) - len(kept)

    async def delete_document(self, document_id: str) -> int:
        """Forget a document."""
        self._records.pop(document_id, None)
        return await self.delete_generations(document_id, keep=0)

    async def search_dense(self, embedding: NDArray[np.float32], limit: int) -> list[IndexHit]:
        """Score every chunk by cosine similarity."""
        points.check_limit(limit)
        points.check_embedding(embedding, self.dimension)
        arrays = self._laid_out()
        scores = arrays.embeddings @ (embedding / max(float(np.linalg.norm(embedding)), 1e-12))
        return arrays.best(scores, limit)

    async def search_sparse(self, sparse: SparseVector, limit: int) -> list[IndexHit]:
        """Score the chunks that share a term with the query by BM25."""
        points.check_limit(limit)
        arrays = self._laid_out()
        return arrays.best(arrays.score_terms(sparse), limit, above=0.0)

    def score_documents(self, embeddings: NDArray[np.float32]) -> tuple[list[str], NDArray[np.float32]]:
        """Score all documents for many queries ``(q, d)`` at once: their ids, sorted, and cosines ``(q, documents)``.

        A document's score is its best chunk's, whatever its generation.
        """
        points.check_embedding(embeddings[0], self.dimension)
        arrays = self._laid_out()
        queries = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        rows = max(1, _SCORES_AT_ONCE // max(1, len(arrays.chunks)))
        blocks = [
            arrays.best_chunks(queries[at : at + rows] @ arrays.embeddings.T) for at in range(0, len(queries), rows)
        ]
        return arrays.document_ids, np.concatenate(blocks)

    def score_documents_sparse(self, sparse: SparseVector) -> tuple[list[str], NDArray[np.float32]]:
        """Score all documents by their best chunk's BM25: their ids, sorted, and ``(documents,)``."""
        arrays = self._laid_out()
        return arrays.document_ids, arrays.best_chunks(arrays.score_terms(sparse)[None])[0]

    def embeddings(self) -> tuple[list[StoredChunk], NDArray[np.float32]]:
        """Give all chunks, document by document, with their embeddings ``(n, d)``, each row of length 1."""
        arrays = self._laid_out()
        return arrays.chunks, arrays.embeddings

    async def stats(self) -> IndexStats:
        """Count what is there."""
        return IndexStats(len(self._records), sum(map(len, self._chunks.values())))

    async def close(self) -> None:
        """Forget everything."""
        self._chunks, self._records, self._arrays = {}, {}, None

    def _laid_out(self) -> _Arrays:
        if self._arrays is None:
            indexed = [chunk for _, chunks in sorted(self._chunks.items()) for chunk in chunks.values()]
            self._arrays = _Arrays.of(indexed, self.dimension)
        return self._arrays


@dataclass(frozen=True, slots=True)
class _Arrays:
    """``n`` chunks; each distinct term's chunks stand together among the ``m`` postings."""

    chunks: list[StoredChunk]
    embeddings: NDArray[np.float32]  # (n, d), each row of length 1
    terms: NDArray[np.uint32]  # (t,), sorted
    starts: NDArray[np.int64]  # (t + 1,), where each term's postings begin
    rows: NDArray[np.int64]  # (m,), chunks
    weights: NDArray[np.float32]  # (m,)
    document_ids: list[str]  # sorted, as the chunks are
    document_starts: NDArray[np.int64]  # where each document's chunks begin

    @classmethod
    def of(cls, indexed: Sequence[IndexedChunk], dimension: int) -> _Arrays:
        embeddings = np.empty((len(indexed), dimension), np.float32)
        for row, chunk in enumerate(indexed):
            embeddings[row] = chunk.embedding
        embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        sizes = [len(chunk.sparse.indices) for chunk in indexed]
        found = np.concatenate([np.empty(0, np.uint32), *(chunk.sparse.indices for chunk in indexed)])
        weights = np.concatenate([np.empty(0, np.float32), *(chunk.sparse.values for chunk in indexed)])
        order = np.argsort(found, kind="stable")
        terms, starts = np.unique(found[order], return_index=True)
        rows = np.repeat(np.arange(len(indexed)), sizes)[order]
        owners = [chunk.chunk.document_id for chunk in indexed]
        document_starts = [place for place, owner in enumerate(owners) if place == 0 or owners[place - 1] != owner]
        return cls(
            [chunk.chunk for chunk in indexed],
            embeddings,
            terms,
            np.append(starts, len(found)),
            rows,
            weights[order],
            [owners[place] for place in document_starts],
            np.array(document_starts, np.int64),
        )

    def best_chunks(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn scores of chunks ``(q, n)`` into those of documents ``(q, documents)``."""
        if not self.document_ids:
            return scores
        best: NDArray[np.float32] = np.maximum.reduceat(scores, self.document_starts, axis=1)
        return best

    def score_terms(self, sparse: SparseVector) -> NDArray[np.float32]:
        """Score all chunks by BM25: ``(n,)``, 0 where no term is shared."""
        scores = np.zeros(len(self.chunks), np.float32)
        for term, count in zip(sparse.indices, sparse.values, strict=True):
            place = int(np.searchsorted(self.terms, term))
            if place == len(self.terms) or self.terms[place] != term:
                continue
            postings = slice(int(self.starts[place]), int(self.starts[place + 1]))
            frequency = postings.stop - postings.start
            # Qdrant's Modifier.IDF, by which the engine scores.
            rarity = np.log1p((len(self.chunks) - frequency + 0.5) / (frequency + 0.5))
            scores[self.rows[postings]] += self.weights[postings] * np.float32(count * rarity)
        return scores

    def best(self, scores: NDArray[np.float32], limit: int, above: float = -np.inf) -> list[IndexHit]:
        if limit < len(scores):
            # Of equals at the border those that came first are taken, as below.
            border = np.partition(scores, -limit)[-limit]
            rows = np.concatenate([np.flatnonzero(scores > border), np.flatnonzero(scores == border)])[:limit]
        else:
            rows = np.arange(len(scores))
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        rows = rows[scores[rows] > above]
        return [IndexHit(self.chunks[row], score) for row, score in zip(rows, scores[rows].tolist(), strict=True)]
