"""The embedded engine (qdrant-edge-py), blocking: our dataclasses in and out, its errors translated.

Its calls hold Python's interpreter lock to their end, so threads gain nothing here; most of its errors are a bare
``Exception``, some a Rust panic, which is no ``Exception`` at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable, StorageFull
from ingest.index import points
from ingest.index.data_directory import sync_file, sync_tree
from ingest.index.interface import (
    DocumentKey,
    DocumentRecord,
    Generations,
    IndexedChunk,
    IndexHit,
    IndexStats,
    Scope,
    SparseVector,
    StoredChunk,
)
from ingest.index.records import Change, RecordState, is_tombstone

_LOG_FOLDER = "wal"


class Engine:
    """One open shard."""

    def __init__(self, shard: edge.EdgeShard, folder: Path) -> None:
        self._shard = shard
        self._folder = folder
        self._recorded: deque[edge.UpdateOperation] | None = None
        self._synced = False  # what loading replays may be in memory alone

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
                (points.TENANT, edge.PayloadSchemaType.Keyword),
                (points.DOCUMENT_ID, edge.PayloadSchemaType.Keyword),
                (points.GENERATION, edge.PayloadSchemaType.Integer),
            ):
                shard.update(edge.UpdateOperation.create_field_index(field, schema))
            shard.close()
            sync_tree(draft)
            draft.rename(folder)
            sync_file(folder.parent)
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

    def change_records(
        self, changes: Sequence[tuple[DocumentKey, Change]]
    ) -> list[tuple[RecordState | None, RecordState | None]]:
        """Change what is known of documents, one after another, in one write.

        Give what was known before each change, and what the change made of it.
        """
        states = self.get_states(list({key for key, _ in changes}))
        changed: dict[DocumentKey, RecordState] = {}
        found = []
        for key, change in changes:
            before = states.get(key)
            after = change(before)
            if after is not None and after != before:
                states[key] = changed[key] = after
            found.append((before, after))
        if changed:
            written = [
                edge.Point(points.record_point_id(key), {}, points.state_payload(key, state))
                for key, state in changed.items()
            ]
            self._update(edge.UpdateOperation.upsert_points(written))
        return found

    def drop_tombstone(self, key: DocumentKey, generation: int) -> None:
        """Delete a tombstone, where it is of just this generation."""
        if is_tombstone(self.get_states([key]).get(key), generation):
            self._update(edge.UpdateOperation.delete_points([points.record_point_id(key)]))

    def get_states(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, RecordState]:
        """Read what is known of documents."""
        return dict(points.read_state(payload) for payload in self._payloads([points.record_point_id(k) for k in keys]))

    def list_records(self, tenant: str | None, start: str | None, limit: int) -> tuple[list[DocumentRecord], str]:
        """Read a page of records that begins with a point, and the point that the next page begins with."""
        of_tenant = [] if tenant is None else [_match(points.TENANT, tenant)]
        chosen = edge.Filter(must=[*of_tenant, _match(points.KIND, points.KIND_RECORD)])
        request = edge.ScrollRequest(offset=start, limit=limit, filter=chosen, with_payload=True)
        with _translated(self._folder):
            found, following = self._shard.scroll(request)
        records = [points.read_record(record.payload or {}) for record in found]
        return records, "" if following is None else str(following)

    def get_chunks(self, key: DocumentKey, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read the chunks that exist, in order."""
        ids = [points.chunk_point_id(key, generation, index) for index in range(first, last + 1)]
        chunks = [points.read_chunk(payload) for payload in self._payloads(ids)]
        return sorted(chunks, key=lambda chunk: chunk.chunk_index)

    def count_chunks(self, key: DocumentKey, generations: Collection[int]) -> int:
        """Count the chunks of some generations."""
        return self._count(_chunks_of(key, generations))

    def delete_chunks(
        self, key: DocumentKey, *, generation: int | None, below: int | None, keep: Collection[int]
    ) -> int:
        """Delete the chunks of one generation, or of all ``below`` one but those to ``keep``; say how many."""
        chosen = _chunks_below(key, below, keep) if below is not None else _chunks_of(key, [generation or 0])
        count = self._count(chosen)
        if count:
            self._update(edge.UpdateOperation.delete_points_by_filter(chosen))
        return count

    def search_dense(self, embedding: NDArray[np.float32], limit: int, scope: Scope) -> list[IndexHit]:
        """Find the nearest chunks by cosine."""
        return self._search(edge.Query.Nearest(embedding.tolist(), using=points.DENSE), limit, scope)

    def search_sparse(self, sparse: SparseVector, limit: int, scope: Scope) -> list[IndexHit]:
        """Find the best chunks by BM25."""
        # Without a corpus, deleted chunks count in document frequencies until the engine is opened anew.
        params = edge.SearchParams(idf=edge.IdfParams(corpus=_in_scope(Scope(scope.tenant))))
        return self._search(edge.Query.Nearest(_sparse(sparse), using=points.SPARSE), limit, scope, params)

    def stats(self) -> IndexStats:
        """Count documents and chunks."""
        document_count, chunk_count = (
            self._count(edge.Filter(must=[_match(points.KIND, kind)]))
            for kind in (points.KIND_RECORD, points.KIND_CHUNK)
        )
        return IndexStats(document_count=document_count, chunk_count=chunk_count)

    def flush(self) -> None:
        """Write everything to its place on the disk, and shorten the write-ahead log; takes tens of milliseconds."""
        with _translated(self._folder):
            self._shard.flush()
        self._synced = True

    def sync(self) -> None:
        """Have all that was written survive a loss of power: the write-ahead log holds what no flush put in its place.

        The engine writes its log through a memory map; syncing a file takes the pages of its maps along.
        """
        if self._synced:
            return
        with _translated(self._folder):
            sync_tree(self._folder / _LOG_FOLDER)
        self._synced = True

    def count_points(self) -> int:
        """Count chunks, records and tombstones."""
        with _translated(self._folder):
            return self._shard.info().points_count

    def optimize(self) -> bool:
        """Build graphs for the dense vectors and drop what was deleted; say whether there was anything to do.

        Takes a minute for 100,000 chunks, and holds the interpreter lock all the while.
        """
        with _translated(self._folder):
            return self._shard.optimize()

    def start_recording(self) -> None:
        """Remember all writes from now on, for :meth:`replay_recorded`."""
        self._recorded = deque()

    def replay_recorded(self, copy: Engine, operations_max: int) -> bool:
        """Write to an older copy of this engine what it lacks, up to a number of writes; say whether more are left."""
        recorded = self._recorded or deque()
        for _ in range(min(operations_max, len(recorded))):
            copy._update(recorded.popleft())
        return bool(recorded)

    def drop_recorded(self) -> None:
        """Forget the remembered writes."""
        self._recorded = None

    def close(self) -> None:
        """Flush and let go of the folder."""
        with _translated(self._folder):
            self._shard.close()

    def _update(self, operation: edge.UpdateOperation) -> None:
        self._synced = False
        with _translated(self._folder):
            self._shard.update(operation)
        if self._recorded is not None:
            self._recorded.append(operation)

    def _count(self, chosen: edge.Filter) -> int:
        with _translated(self._folder):
            return self._shard.count(edge.CountRequest(exact=True, filter=chosen))

    def _payloads(self, ids: list[str]) -> list[edge.Payload]:
        if not ids:
            return []
        with _translated(self._folder):
            found = self._shard.retrieve(list(ids), with_payload=True, with_vector=False)
        return [record.payload for record in found if record.payload]

    def _search(
        self, query: edge.Query, limit: int, scope: Scope, params: edge.SearchParams | None = None
    ) -> list[IndexHit]:
        request = edge.QueryRequest(limit=limit, query=query, filter=_in_scope(scope), params=params, with_payload=True)
        with _translated(self._folder):
            found = self._shard.query(request)
        return [IndexHit(points.read_chunk(hit.payload or {}), hit.score) for hit in found]


def _point(indexed: IndexedChunk) -> edge.Point:
    chunk = indexed.chunk
    vectors: dict[str, edge.NamedVector] = {points.DENSE: indexed.embedding.tolist()}
    if len(indexed.sparse.indices):
        vectors[points.SPARSE] = _sparse(indexed.sparse)
    point_id = points.chunk_point_id(chunk.key, chunk.generation, chunk.chunk_index)
    return edge.Point(point_id, vectors, points.chunk_payload(chunk))


def _sparse(sparse: SparseVector) -> edge.SparseVector:
    return edge.SparseVector(sparse.indices.tolist(), sparse.values.tolist())


def _match(field: str, value: str | int) -> edge.FieldCondition:
    return edge.FieldCondition(field, match=edge.MatchValue(value))


def _among(values: Collection[int]) -> edge.FieldCondition:
    return edge.FieldCondition(points.GENERATION, match=edge.MatchAny(list(values)))


def _document(key: DocumentKey) -> list[edge.ConditionType]:
    return [
        _match(points.KIND, points.KIND_CHUNK),
        _match(points.TENANT, key.tenant),
        _match(points.DOCUMENT_ID, key.document_id),
    ]


def _chunks_of(key: DocumentKey, generations: Collection[int]) -> edge.Filter:
    return edge.Filter(must=[*_document(key), _among(generations)])


def _chunks_below(key: DocumentKey, below: int, keep: Collection[int]) -> edge.Filter:
    older = edge.FieldCondition(points.GENERATION, range=edge.RangeFloat(lt=below))
    return edge.Filter(must=[*_document(key), older], must_not=[_among(keep)] if keep else None)


def _in_scope(scope: Scope) -> edge.Filter:
    tenant = _match(points.TENANT, scope.tenant)
    only = None if scope.generations is None else _versions(scope.generations)
    return edge.Filter(must=[tenant], should=only, must_not=_versions(scope.without) or None)


def _versions(chosen: Generations) -> list[edge.ConditionType]:
    return [
        edge.Filter(
            must=[_among(generations), edge.FieldCondition(points.DOCUMENT_ID, match=edge.MatchAny(document_ids))]
        )
        for generations, document_ids in points.by_generations(chosen).items()
    ]


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
