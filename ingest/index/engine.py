"""The embedded engine (qdrant-edge-py), blocking: our dataclasses in and out, its errors translated.

Its calls hold Python's interpreter lock to their end, so threads gain nothing here; most of its errors are a bare
``Exception``, some a Rust panic, which is no ``Exception`` at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable, StorageFull
from ingest.index import points
from ingest.index.interface import DocumentRecord, IndexedChunk, IndexHit, IndexStats, SparseVector, StoredChunk


class Engine:
    """One open shard."""

    def __init__(self, shard: edge.EdgeShard, folder: Path) -> None:
        self._shard = shard
        self._folder = folder
        self._journal: deque[edge.UpdateOperation] | None = None

    @classmethod
    def create(cls, folder: Path, dimension: int) -> Engine:
        """Make a new, empty shard in a folder that does not exist; it appears whole or not at all."""
        config = edge.EdgeConfig(
            vectors={points.DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
            sparse_vectors={points.SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
            wal_enabled=True,
        )
        draft = folder.with_name(f"{folder.name}.new")
        with _translated(folder):
            draft.mkdir()
            shard = edge.EdgeShard.create(str(draft), config)
            for field, schema in (
                (points.KIND, edge.PayloadSchemaType.Keyword),
                (points.DOCUMENT_ID, edge.PayloadSchemaType.Keyword),
                (points.GENERATION, edge.PayloadSchemaType.Integer),
            ):
                shard.update(edge.UpdateOperation.create_field_index(field, schema))
            shard.close()
            draft.rename(folder)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Engine:
        """Open a shard; the write-ahead log is replayed."""
        with _translated(folder):
            if not folder.is_dir():
                raise IndexUnavailable(
                    f"{folder} is missing; restore it from a backup, or delete the data directory and ingest again."
                )
            return cls(edge.EdgeShard.load(str(folder)), folder)

    def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks; they are in the write-ahead log on return."""
        self._update(edge.UpdateOperation.upsert_points([_point(indexed) for indexed in chunks]))

    def put_record(self, record: DocumentRecord) -> None:
        """Write a document's record."""
        point = edge.Point(points.record_point_id(record.document_id), {}, points.record_payload(record))
        self._update(edge.UpdateOperation.upsert_points([point]))

    def get_records(self, document_ids: Sequence[str]) -> dict[str, DocumentRecord]:
        """Read the records that exist."""
        payloads = self._payloads([points.record_point_id(document_id) for document_id in document_ids])
        records = [points.read_record(payload) for payload in payloads]
        return {record.document_id: record for record in records}

    def get_chunks(self, document_id: str, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read the chunks that exist, in order."""
        ids = [points.chunk_point_id(document_id, generation, index) for index in range(first, last + 1)]
        chunks = [points.read_chunk(payload) for payload in self._payloads(ids)]
        return sorted(chunks, key=lambda chunk: chunk.chunk_index)

    def count_chunks(self, document_id: str | None = None, *, only: int | None = None, but: int | None = None) -> int:
        """Count chunks: of a document, of one of its generations, or of all ``but`` one."""
        return self._count(_chunks_of(document_id, only=only, but=but))

    def count_records(self) -> int:
        """Count documents."""
        return self._count(edge.Filter(must=[_match(points.KIND, points.KIND_RECORD)]))

    def delete_record(self, document_id: str) -> None:
        """Delete a document's record, where there is one."""
        self._update(edge.UpdateOperation.delete_points([points.record_point_id(document_id)]))

    def delete_chunks(self, document_id: str, *, but: int | None = None) -> int:
        """Delete a document's chunks, those of generation ``but`` excepted; say how many."""
        chosen = _chunks_of(document_id, but=but)
        count = self._count(chosen)
        if count:
            self._update(edge.UpdateOperation.delete_points_by_filter(chosen))
        return count

    def search_dense(self, embedding: NDArray[np.float32], limit: int) -> list[IndexHit]:
        """Find the nearest chunks by cosine."""
        return self._search(edge.Query.Nearest(embedding.tolist(), using=points.DENSE), limit)

    def search_sparse(self, sparse: SparseVector, limit: int) -> list[IndexHit]:
        """Find the best chunks by BM25."""
        # Without a corpus, deleted chunks count in document frequencies until the engine is opened anew.
        params = edge.SearchParams(idf=edge.IdfParams(corpus=_chunks_of(None)))
        return self._search(edge.Query.Nearest(_sparse(sparse), using=points.SPARSE), limit, params)

    def stats(self) -> IndexStats:
        """Count documents and chunks."""
        return IndexStats(document_count=self.count_records(), chunk_count=self.count_chunks())

    def flush(self) -> None:
        """Write everything to its place, and shorten the write-ahead log."""
        with _translated(self._folder):
            self._shard.flush()

    def count_points(self) -> int:
        """Count chunks and records."""
        with _translated(self._folder):
            return self._shard.info().points_count

    def optimize(self) -> bool:
        """Build graphs for the dense vectors and drop what was deleted; say whether there was anything to do.

        Takes a minute for 100,000 chunks, and holds the interpreter lock all the while.
        """
        with _translated(self._folder):
            return self._shard.optimize()

    def start_journal(self) -> None:
        """Remember all writes from now on, for :meth:`replay_journal`."""
        self._journal = deque()

    def replay_journal(self, copy: Engine, operations_max: int) -> bool:
        """Write to an older copy of this engine what it lacks, up to a number of writes; say whether more are left."""
        journal = self._journal or deque()
        for _ in range(min(operations_max, len(journal))):
            copy._update(journal.popleft())
        return bool(journal)

    def drop_journal(self) -> None:
        """Forget the remembered writes."""
        self._journal = None

    def close(self) -> None:
        """Flush and let go of the folder."""
        with _translated(self._folder):
            self._shard.close()

    def _update(self, operation: edge.UpdateOperation) -> None:
        with _translated(self._folder):
            self._shard.update(operation)
        if self._journal is not None:
            self._journal.append(operation)

    def _count(self, chosen: edge.Filter) -> int:
        with _translated(self._folder):
            return self._shard.count(edge.CountRequest(exact=True, filter=chosen))

    def _payloads(self, ids: list[str]) -> list[edge.Payload]:
        if not ids:
            return []
        with _translated(self._folder):
            found = self._shard.retrieve(list(ids), with_payload=True, with_vector=False)
        return [record.payload for record in found if record.payload]

    def _search(self, query: edge.Query, limit: int, params: edge.SearchParams | None = None) -> list[IndexHit]:
        request = edge.QueryRequest(limit=limit, query=query, filter=_chunks_of(None), params=params, with_payload=True)
        with _translated(self._folder):
            found = self._shard.query(request)
        return [IndexHit(points.read_chunk(hit.payload or {}), hit.score) for hit in found]


def _point(indexed: IndexedChunk) -> edge.Point:
    chunk = indexed.chunk
    vectors: dict[str, edge.NamedVector] = {points.DENSE: indexed.embedding.tolist()}
    if len(indexed.sparse.indices):
        vectors[points.SPARSE] = _sparse(indexed.sparse)
    point_id = points.chunk_point_id(chunk.document_id, chunk.generation, chunk.chunk_index)
    return edge.Point(point_id, vectors, points.chunk_payload(chunk))


def _sparse(sparse: SparseVector) -> edge.SparseVector:
    return edge.SparseVector(sparse.indices.tolist(), sparse.values.tolist())


def _match(field: str, value: str | int) -> edge.FieldCondition:
    return edge.FieldCondition(field, match=edge.MatchValue(value))


def _chunks_of(document_id: str | None, *, only: int | None = None, but: int | None = None) -> edge.Filter:
    must: list[edge.ConditionType] = [_match(points.KIND, points.KIND_CHUNK)]
    if document_id is not None:
        must.append(_match(points.DOCUMENT_ID, document_id))
    if only is not None:
        must.append(_match(points.GENERATION, only))
    return edge.Filter(must=must, must_not=[_match(points.GENERATION, but)] if but is not None else None)


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except IndexUnavailable:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if "No space left" in str(error):
            raise StorageFull(f"The disk of {folder} is full; free some space and try again.") from error
        raise IndexUnavailable(
            f"The engine failed on {folder} ({_first_line(error)}); where this repeats, the folder is damaged: restore "
            "it from a backup, or delete the data directory and ingest again."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
