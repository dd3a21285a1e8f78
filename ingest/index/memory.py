"""The index as arrays in this process: exact, gone with the process. Fulfils ``VectorIndex``.

Made for measuring: every chunk is scored for every query, no hit travels through an engine, and nothing is written. Its
answers are the embedded engine's (a test asks both), as long as that one is exact, too.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.documents import DEFAULT_TENANT
from ingest.filters import Filter, matches
from ingest.index import points, records
from ingest.index.frequencies import rarity
from ingest.index.interface import (
    READ_MAX,
    ChunkKey,
    DocumentKey,
    DocumentRecord,
    HitsRead,
    IndexAnswer,
    IndexedChunk,
    IndexHit,
    IndexStats,
    ReadConsistency,
    Scope,
    SparseVector,
    StoredChunk,
)

_SCORES_AT_ONCE = 1 << 25

_Place = tuple[int, int]  # generation, chunk_index


class MemoryIndex:
    """Keeps chunks as they come, and lays them out as arrays when a search follows a write."""

    def __init__(self, *, dimension: int, fingerprint: str) -> None:
        self.dimension = dimension
        self.fingerprint = fingerprint
        self._chunks: dict[DocumentKey, dict[_Place, IndexedChunk]] = {}
        self._states: dict[DocumentKey, records.RecordState] = {}
        self._arrays: dict[str, _Arrays] = {}  # tenant -> its chunks as they are now

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Keep chunks."""
        points.check_batch(chunks, self.dimension)
        for indexed in chunks:
            chunk = indexed.chunk
            self._chunks.setdefault(chunk.key, {})[chunk.generation, chunk.chunk_index] = indexed
            self._arrays.pop(chunk.tenant, None)

    async def count_chunks(self, key: DocumentKey, *generations: int) -> int:
        """Count the chunks of some generations."""
        return sum(place[0] in generations for place in self._chunks.get(key, ()))

    async def commit_record(self, record: DocumentRecord, *, in_place_of: int | None = None) -> bool:
        """Make a generation the visible one, unless it is fenced."""
        points.check_generation(record.generation)
        _, after = self._change(record.key, records.committing(record, in_place_of=in_place_of))
        return after is not None

    async def fence(self, key: DocumentKey, generation: int) -> DocumentRecord | None:
        """Refuse commits up to a generation; give the committed record."""
        points.check_generation(generation, 0)
        _, after = self._change(key, records.fencing(generation))
        return after.record if after else None

    async def get_fences(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        """Read how far documents are fenced."""
        points.check_read("keys", len(keys))
        return records.fences({key: self._states[key] for key in keys if key in self._states})

    async def get_records(
        self,
        keys: Sequence[DocumentKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,  # noqa: ARG002 - there is one copy
    ) -> dict[DocumentKey, DocumentRecord]:
        """Read the records of the documents that exist."""
        points.check_read("keys", len(keys))
        return records.committed({key: self._states[key] for key in keys if key in self._states})

    async def list_records(self, tenant: str | None, after: str, limit: int) -> tuple[list[DocumentRecord], str]:
        """Read a page of a tenant's records, in the order of the engine's points."""
        points.check_limit(limit, READ_MAX)
        start = points.page_start(after) or ""
        named = {
            points.record_point_id(key): record
            for key, record in records.committed(self._states).items()
            if tenant in (None, key.tenant)
        }
        found = sorted(name for name in named if name >= start)
        return [named[name] for name in found[:limit]], found[limit] if len(found) > limit else ""

    async def get_chunks(self, key: DocumentKey, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks ``first`` to ``last`` that exist, in order."""
        points.check_read("last", last - first + 1)
        chunks = self._chunks.get(key, {})
        found = (chunks.get((generation, number)) for number in range(first, last + 1))
        return [indexed.chunk for indexed in found if indexed]

    async def read_chunks(
        self,
        chunks: Sequence[ChunkKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,  # noqa: ARG002 - there is one copy
    ) -> dict[ChunkKey, StoredChunk]:
        """Read the chunks that exist."""
        points.check_read("chunks", len(chunks))
        return {key: indexed.chunk for key in chunks if (indexed := self._chunk(key))}

    async def read_hits(
        self, chunks: Sequence[ChunkKey], *, consistency: ReadConsistency = ReadConsistency.DEFAULT
    ) -> HitsRead:
        """Read the chunks that exist, and their documents' records."""
        keys = list({DocumentKey(key.tenant, key.document_id) for key in chunks})
        found = await self.read_chunks(chunks, consistency=consistency)
        return found, await self.get_records(keys, consistency=consistency)

    async def get_embeddings(self, chunks: Sequence[ChunkKey]) -> dict[ChunkKey, NDArray[np.float32]]:
        """Read the embeddings of the chunks that exist."""
        points.check_read("chunks", len(chunks))
        found = {}
        for key in chunks:
            if indexed := self._chunk(key):
                length = max(float(np.linalg.norm(indexed.embedding)), 1e-12)
                found[key] = (indexed.embedding / length).astype(np.float32)
        return found

    async def delete_record(self, key: DocumentKey, generation: int) -> bool:
        """Leave a tombstone."""
        points.check_generation(generation)
        return records.deleted_by(*self._change(key, records.deleting(generation)))

    async def drop_tombstone(self, key: DocumentKey, generation: int) -> None:
        """Forget a tombstone of just this generation."""
        if records.is_tombstone(self._states.get(key), generation):
            del self._states[key]

    async def delete_chunks(
        self, key: DocumentKey, *, generation: int | None = None, below: int | None = None, keep: Collection[int] = ()
    ) -> int:
        """Forget one generation, or all below one but those to keep."""
        points.check_chosen(generation, below, keep)
        chunks = self._chunks.pop(key, {})
        kept = {
            place: indexed
            for place, indexed in chunks.items()
            if place[0] != generation and (below is None or place[0] >= below or place[0] in keep)
        }
        if kept:
            self._chunks[key] = kept
        if len(kept) < len(chunks):
            self._arrays.pop(key.tenant, None)
        return len(chunks) - len(kept)

    async def search(
        self,
        embedding: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        limit: int,
        scope: Scope,
        *,
        read_first: int = 0,  # not done: reading is a call of its own
    ) -> IndexAnswer:
        """Score every chunk by cosine similarity, and those that share a term with the query by BM25."""
        points.check_search(embedding, self.dimension, limit, scope, read_first)
        arrays = self._laid_out(scope.tenant)
        started = time.perf_counter()
        dense: list[IndexHit] = []
        words: list[IndexHit] = []
        if embedding is not None:
            scores = arrays.embeddings @ (embedding / max(float(np.linalg.norm(embedding)), 1e-12))
            dense = arrays.best(arrays.in_scope(scores, scope, self._states), limit)
        between = time.perf_counter()
        if sparse is not None:
            words = arrays.best(arrays.in_scope(arrays.score_terms(sparse), scope, self._states), limit, above=0.0)
        ended = time.perf_counter()
        keys = points.documents_asked(scope, dense, words)
        found = records.committed({key: self._states[key] for key in keys if key in self._states})
        return IndexAnswer(dense, words, records.generations_in(scope, found), between - started, ended - between)

    def score_documents(
        self, embeddings: NDArray[np.float32], tenant: str = DEFAULT_TENANT
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Score a tenant's documents for many queries ``(q, d)`` at once: ids, sorted, and cosines ``(q, documents)``.

        A document's score is its best chunk's, whatever its generation.
        """
        points.check_embedding(embeddings[0], self.dimension)
        arrays = self._laid_out(tenant)
        queries = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        rows = max(1, _SCORES_AT_ONCE // max(1, len(arrays.chunks)))
        blocks = [
            arrays.best_chunks(queries[at : at + rows] @ arrays.embeddings.T) for at in range(0, len(queries), rows)
        ]
        return arrays.document_ids, np.concatenate(blocks)

    def score_documents_sparse(
        self, sparse: SparseVector, tenant: str = DEFAULT_TENANT
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Score a tenant's documents by their best chunk's BM25: their ids, sorted, and ``(documents,)``."""
        arrays = self._laid_out(tenant)
        return arrays.document_ids, arrays.best_chunks(arrays.score_terms(sparse)[None])[0]

    def embeddings(self, tenant: str = DEFAULT_TENANT) -> tuple[list[StoredChunk], NDArray[np.float32]]:
        """Give a tenant's chunks, document by document, with their embeddings ``(n, d)``, each row of length 1."""
        arrays = self._laid_out(tenant)
        return arrays.chunks, arrays.embeddings

    async def stats(self) -> IndexStats:
        """Count what is there."""
        return IndexStats(len(records.committed(self._states)), sum(map(len, self._chunks.values())))

    async def flush(self) -> None:
        """Do nothing: it is gone with the process."""

    async def close(self) -> None:
        """Forget everything."""
        self._chunks, self._states, self._arrays = {}, {}, {}

    def _chunk(self, key: ChunkKey) -> IndexedChunk | None:
        return self._chunks.get(DocumentKey(key.tenant, key.document_id), {}).get((key.generation, key.chunk_index))

    def _change(
        self, key: DocumentKey, change: records.Change
    ) -> tuple[records.RecordState | None, records.RecordState | None]:
        before = self._states.get(key)
        after = change(before)
        if after is not None and after != before:
            self._states[key] = replace(after, describing=False)
            self._arrays.pop(key.tenant, None)
        return before, after

    def _laid_out(self, tenant: str) -> _Arrays:
        if tenant not in self._arrays:
            theirs = sorted((key.document_id, chunks) for key, chunks in self._chunks.items() if key.tenant == tenant)
            indexed = [chunk for _, chunks in theirs for chunk in chunks.values()]
            self._arrays[tenant] = _Arrays.of(indexed, self.dimension, self._states)
        return self._arrays[tenant]


@dataclass(frozen=True, slots=True)
class _Arrays:
    """``n`` chunks; each distinct term's chunks stand together among the ``m`` postings."""

    chunks: list[StoredChunk]
    committed: NDArray[np.bool_]  # (n,), whether the document's record lists the chunk's generation
    embeddings: NDArray[np.float32]  # (n, d), each row of length 1
    terms: NDArray[np.uint32]  # (t,), sorted
    starts: NDArray[np.int64]  # (t + 1,), where each term's postings begin
    rows: NDArray[np.int64]  # (m,), chunks
    weights: NDArray[np.float32]  # (m,)
    document_ids: list[str]  # sorted, as the chunks are
    document_starts: NDArray[np.int64]  # where each document's chunks begin

    @classmethod
    def of(
        cls, indexed: Sequence[IndexedChunk], dimension: int, states: Mapping[DocumentKey, records.RecordState]
    ) -> _Arrays:
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
            np.array([_committed(chunk.chunk, states) is not None for chunk in indexed], np.bool_),
            embeddings,
            terms,
            np.append(starts, len(found)),
            rows,
            weights[order],
            [owners[place] for place in document_starts],
            np.array(document_starts, np.int64),
        )

    def in_scope(
        self, scores: NDArray[np.float32], scope: Scope, states: Mapping[DocumentKey, records.RecordState]
    ) -> NDArray[np.float32]:
        """Put the chunks that a scope leaves out below all others: ``(n,)``."""
        only, without, filter_ = scope.generations, scope.without, scope.filter
        if only is None and not without and filter_ is None:
            return scores
        inside = [
            (only is None or chunk.generation in only.get(chunk.document_id, ()))
            and chunk.generation not in without.get(chunk.document_id, ())
            and (filter_ is None or _holds(filter_, chunk, states))
            for chunk in self.chunks
        ]
        return np.where(inside, scores, np.float32(-np.inf))

    def best_chunks(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn scores of chunks ``(q, n)`` into those of documents ``(q, documents)``."""
        if not self.document_ids:
            return scores
        best: NDArray[np.float32] = np.maximum.reduceat(scores, self.document_starts, axis=1)
        return best

    def score_terms(self, sparse: SparseVector) -> NDArray[np.float32]:
        """Score all chunks by BM25: ``(n,)``, 0 where no term is shared."""
        scores = np.zeros(len(self.chunks), np.float32)
        chunk_count = int(self.committed.sum())
        for term, count in zip(sparse.indices, sparse.values, strict=True):
            place = int(np.searchsorted(self.terms, term))
            if place == len(self.terms) or self.terms[place] != term:
                continue
            postings = slice(int(self.starts[place]), int(self.starts[place + 1]))
            found = self.rows[postings]
            frequency = np.float32(self.committed[found].sum())
            scores[found] += self.weights[postings] * np.float32(count * rarity(frequency, chunk_count))
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
        return [
            IndexHit(self.chunks[row].chunk_key, score) for row, score in zip(rows, scores[rows].tolist(), strict=True)
        ]


def _committed(chunk: StoredChunk, states: Mapping[DocumentKey, records.RecordState]) -> DocumentRecord | None:
    """Give the record that lists a chunk's generation; None where there is none."""
    state = states.get(chunk.key)
    return state.record if state and state.record and chunk.generation in state.record.generations else None


def _holds(expression: Filter, chunk: StoredChunk, states: Mapping[DocumentKey, records.RecordState]) -> bool:
    record = _committed(chunk, states)
    return record is not None and matches(expression, record)
