"""The embedded engine (qdrant-edge-py), blocking: our dataclasses in and out, its errors translated.

Its calls hold Python's interpreter lock to their end, so threads gain nothing here; most of its errors are a bare
``Exception``, some a Rust panic, which is no ``Exception`` at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable
from ingest.index import points
from ingest.index.chunk_names import ChunkNames, PointId
from ingest.index.data_directory import DataDirectory, Manifest, sync_file, sync_tree
from ingest.index.engine_errors import translated
from ingest.index.engine_models import (
    chunk_point,
    chunks_below,
    chunks_of,
    in_scope,
    matching,
    read_embedding,
    read_terms,
    sparse_vector,
)
from ingest.index.fields import DocumentFields
from ingest.index.frequencies import Terms
from ingest.index.interface import (
    ChunkKey,
    DocumentKey,
    DocumentRecord,
    IndexedChunk,
    IndexHit,
    Scope,
    SparseVector,
    StoredChunk,
)
from ingest.index.records import Change, RecordState, is_tombstone

_LOG_FOLDER = "wal"
_PAGE_POINTS = 512
# Numbers and times of more names are found by reading every chunk's payload.
RANGES_INDEXED_MAX = 256
_INDEXED_FIELDS: tuple[tuple[str, edge.PayloadSchemaType | edge.PayloadSchemaParams], ...] = (
    (points.KIND, edge.PayloadSchemaType.Keyword),
    (points.TENANT, edge.PayloadSchemaType.Keyword),
    (points.DOCUMENT_ID, edge.KeywordIndexParams(prefix=True)),
    (points.GENERATION, edge.PayloadSchemaType.Integer),
    (points.DESCRIBING, edge.PayloadSchemaType.Keyword),
    (points.TOKENS, edge.IntegerIndexParams(lookup=True, range=False)),
)
# More threads than one find nothing sooner: a search takes a millisecond or two, and they mostly wait for each other.
SEARCH_THREADS = 1
_WITHOUT_FIELDS = edge.PayloadSelector.Exclude([points.TOKENS, points.RANGES])


class Engine:
    """One open shard."""

    def __init__(self, shard: edge.EdgeShard, folder: Path) -> None:
        self._shard = shard
        self._folder = folder
        self._recorded: deque[edge.UpdateOperation] | None = None
        self._synced = False  # what loading replays may be in memory alone
        self._ranges = points.range_names(shard.info().payload_schema)  # those that have an index
        self._names = ChunkNames()

    @classmethod
    def create(cls, folder: Path, dimension: int) -> Engine:
        """Make a new, empty shard in a folder that does not exist; it appears whole or not at all."""
        draft = folder.with_name(f"{folder.name}.new")
        with translated(folder):
            draft.mkdir()
            shard = edge.EdgeShard.create(str(draft), _config(dimension))
            for field, schema in _INDEXED_FIELDS:
                shard.update(edge.UpdateOperation.create_field_index(field, schema))
            shard.close()
            sync_tree(draft)
            draft.rename(folder)
            sync_file(folder.parent)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path, dimension: int | None = None) -> Engine:
        """Open a shard; the write-ahead log is replayed. With ``dimension`` it has today's settings from now on."""
        with translated(folder):
            if not folder.is_dir():
                raise IndexUnavailable(
                    f"{folder} is missing; restore it from a backup, or delete the data directory and ingest again."
                )
            return cls(edge.EdgeShard.load(str(folder), _config(dimension) if dimension else None), folder)

    @classmethod
    def open(cls, directory: DataDirectory, manifest: Manifest) -> Engine:
        """Open the shard that a manifest names, or make it; those that it does not name are removed."""
        directory.remove_engines(keep=manifest.engine_number)
        folder = directory.engine_folder(manifest.engine_number)
        if folder.exists():
            return cls.load(folder, manifest.dimension)
        directory.check_write()
        return cls.create(folder, manifest.dimension)

    def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks; they are in the write-ahead log on return."""
        self.index_ranges(name for indexed in chunks if indexed.fields for name in indexed.fields.ranges)
        self._update(edge.UpdateOperation.upsert_points([chunk_point(indexed) for indexed in chunks]))

    def index_ranges(self, names: Iterable[str]) -> None:
        """Have numbers and times of these names found by an index; a new one takes a second for 100,000 chunks."""
        for name in self.new_ranges(names):
            field = points.range_path(name)
            self._update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Float))
            self._ranges.add(name)

    def new_ranges(self, names: Iterable[str]) -> list[str]:
        """Name those of them, each once, that have no index and are to get one."""
        new = [name for name in dict.fromkeys(names) if name not in self._ranges]
        return new[: max(RANGES_INDEXED_MAX - len(self._ranges), 0)]

    def set_fields(self, ids: Collection[str], fields: DocumentFields) -> None:
        """Let those points that exist carry a document's fields."""
        self.index_ranges(fields.ranges)
        self._set_fields(edge.Filter(must=[edge.HasIdCondition(set(ids))]), fields)

    def set_fields_of(self, key: DocumentKey, generation: int, fields: DocumentFields) -> None:
        """Let all chunks of a generation carry a document's fields."""
        self.index_ranges(fields.ranges)
        self._set_fields(chunks_of(key, [generation]), fields)

    def list_describing(self) -> list[DocumentKey]:
        """Name the documents whose chunks may not carry their fields, as an end in the middle of a change left them."""
        pages = self._pages(edge.Filter(must=[matching(points.DESCRIBING, points.YES)]), with_payload=True)
        return [points.read_state(record.payload or {})[0] for page in pages for record in page]

    def read_terms(self, ids: Sequence[str]) -> dict[str, Terms]:
        """Read the terms of those points that exist."""
        if not ids:
            return {}
        with translated(self._folder):
            found = self._shard.retrieve(list(ids), with_payload=False, with_vector=[points.SPARSE])
        return {str(record.id): read_terms(record) for record in found}

    def read_terms_of(self, key: DocumentKey, generations: Collection[int]) -> list[Terms]:
        """Read the terms of each chunk of some generations."""
        pages = self._pages(chunks_of(key, generations), with_payload=False, with_vector=[points.SPARSE])
        return [read_terms(record) for page in pages for record in page]

    def read_all_terms(self) -> Iterator[list[tuple[DocumentKey, int, Terms]]]:
        """Read the terms of all chunks there are, with document and generation, page by page."""
        wanted = [points.TENANT, *points.CHUNK_KEY_FIELDS]
        chunks = edge.Filter(must=[matching(points.KIND, points.KIND_CHUNK)])
        for page in self._pages(chunks, with_payload=wanted, with_vector=[points.SPARSE]):
            payloads = [record.payload or {} for record in page]
            names = [points.read_chunk_key(found[points.TENANT], found) for found in payloads]
            self._names.note((record.id, name) for record, name in zip(page, names, strict=True))
            yield [
                (DocumentKey(name.tenant, name.document_id), name.generation, read_terms(record))
                for record, name in zip(page, names, strict=True)
            ]

    def read_all_generations(self) -> Iterator[list[tuple[DocumentKey, tuple[int, ...]]]]:
        """Read which generations each document's record lists, none for a tombstone, page by page."""
        wanted = [points.KIND, points.TENANT, points.DOCUMENT_ID, points.GENERATION, points.EARLIER]
        kinds = [matching(points.KIND, kind) for kind in (points.KIND_RECORD, points.KIND_TOMBSTONE)]
        for page in self._pages(edge.Filter(should=[*kinds]), with_payload=wanted):
            payloads = [record.payload or {} for record in page]
            yield [
                (DocumentKey(found[points.TENANT], found[points.DOCUMENT_ID]), points.read_generations(found))
                for found in payloads
            ]

    def plan_changes(
        self, changes: Sequence[tuple[DocumentKey, Change]]
    ) -> list[tuple[RecordState | None, RecordState | None]]:
        """Say what is known of documents before each change, one after another, and what the change makes of it."""
        states = self.get_states(list({key for key, _ in changes}))
        found = []
        for key, change in changes:
            before = states.get(key)
            after = change(before)
            if after is not None:
                states[key] = after
            found.append((before, after))
        return found

    def write_states(self, states: Mapping[DocumentKey, RecordState]) -> None:
        """Write what is known of documents, in one write."""
        if states:
            written = [
                edge.Point(points.record_point_id(key), {}, points.state_payload(key, state))
                for key, state in states.items()
            ]
            self._update(edge.UpdateOperation.upsert_points(written))

    def drop_tombstone(self, key: DocumentKey, generation: int) -> bool:
        """Delete a tombstone, where it is of just this generation; say whether it was."""
        was = is_tombstone(self.get_states([key]).get(key), generation)
        if was:
            self._update(edge.UpdateOperation.delete_points([points.record_point_id(key)]))
        return was

    def get_states(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, RecordState]:
        """Read what is known of documents."""
        return dict(map(points.read_state, self.get_state_payloads(keys)))

    def get_state_payloads(self, keys: Sequence[DocumentKey]) -> list[edge.Payload]:
        """Read the same as it is written."""
        return self.get_payloads([points.record_point_id(key) for key in keys])

    def list_records(self, tenant: str | None, start: str | None, limit: int) -> tuple[list[DocumentRecord], str]:
        """Read a page of records that begins with a point, and the point that the next page begins with."""
        of_tenant = [] if tenant is None else [matching(points.TENANT, tenant)]
        chosen = edge.Filter(must=[*of_tenant, matching(points.KIND, points.KIND_RECORD)])
        request = edge.ScrollRequest(offset=start, limit=limit, filter=chosen, with_payload=True)
        with translated(self._folder):
            found, following = self._shard.scroll(request)
        records = [points.read_record(record.payload or {}) for record in found]
        return records, "" if following is None else str(following)

    def get_chunks(self, key: DocumentKey, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read the chunks that exist, in order."""
        ids = [points.chunk_point_id(ChunkKey(*key, generation, index)) for index in range(first, last + 1)]
        chunks = [points.read_chunk(payload) for payload in self.get_payloads(ids)]
        return sorted(chunks, key=lambda chunk: chunk.chunk_index)

    def read_chunks(self, chunks: Sequence[ChunkKey]) -> dict[ChunkKey, StoredChunk]:
        """Read the chunks that exist."""
        found = map(points.read_chunk, self.get_payloads([points.chunk_point_id(key) for key in chunks]))
        return {chunk.chunk_key: chunk for chunk in found}

    def get_embeddings(self, chunks: Sequence[ChunkKey]) -> dict[ChunkKey, NDArray[np.float32]]:
        """Read the embeddings of the chunks that exist, each of length 1."""
        if not chunks:
            return {}
        asked = {points.chunk_point_id(key): key for key in chunks}
        with translated(self._folder):
            found = self._shard.retrieve(list(asked), with_payload=False, with_vector=[points.DENSE])
        return {asked[str(record.id)]: read_embedding(record) for record in found}

    def get_payloads(self, ids: list[str]) -> list[edge.Payload]:
        """Read the points that exist as they are written, without what filters ask of them."""
        if not ids:
            return []
        with translated(self._folder):
            found = self._shard.retrieve(list(ids), with_payload=_WITHOUT_FIELDS, with_vector=False)
        return [record.payload for record in found if record.payload]

    def count_chunks(self, key: DocumentKey, generations: Collection[int]) -> int:
        """Count the chunks of some generations."""
        return self._count(chunks_of(key, generations))

    def delete_chunks(
        self, key: DocumentKey, *, generation: int | None, below: int | None, keep: Collection[int]
    ) -> int:
        """Delete the chunks of one generation, or of all ``below`` one but those to ``keep``; say how many."""
        chosen = chunks_below(key, below, keep) if below is not None else chunks_of(key, [generation or 0])
        count = self._count(chosen)
        if count:
            self._update(edge.UpdateOperation.delete_points_by_filter(chosen))
        return count

    def search_dense(self, embedding: NDArray[np.float32], limit: int, scope: Scope) -> list[IndexHit]:
        """Find the nearest chunks by cosine."""
        return self._search(edge.Query.Nearest(embedding.tolist(), using=points.DENSE), limit, scope)

    def search_sparse(self, sparse: SparseVector, limit: int, scope: Scope) -> list[IndexHit]:
        """Find the chunks whose weights have the largest product with a query's."""
        return self._search(edge.Query.Nearest(sparse_vector(sparse), using=points.SPARSE), limit, scope)

    def flush(self) -> None:
        """Write everything to its place on the disk, and shorten the write-ahead log; takes tens of milliseconds."""
        with translated(self._folder):
            self._shard.flush()
        self._synced = True

    def sync(self) -> None:
        """Have all that was written survive a loss of power: the write-ahead log holds what no flush put in its place.

        The engine writes its log through a memory map; syncing a file takes the pages of its maps along.
        """
        if self._synced:
            return
        with translated(self._folder):
            sync_tree(self._folder / _LOG_FOLDER)
        self._synced = True

    def count_points(self) -> int:
        """Count chunks, records and tombstones."""
        with translated(self._folder):
            return self._shard.info().points_count

    def optimize(self) -> bool:
        """Build graphs for the dense vectors and drop what was deleted; say whether there was anything to do.

        Takes a minute for 100,000 chunks, and holds the interpreter lock all the while.
        """
        with translated(self._folder):
            return self._shard.optimize()

    def start_recording(self) -> None:
        """Remember all writes from now on, for :meth:`replay_recorded`."""
        self._recorded = deque()

    def replay_recorded(self, copy: Engine, operations_max: int | None = None) -> bool:
        """Write to an older copy of this engine what it lacks, up to a number of writes; say whether more are left."""
        recorded = self._recorded or deque()
        for _ in range(len(recorded) if operations_max is None else min(operations_max, len(recorded))):
            copy._update(recorded.popleft())
        copy._names = self._names
        return bool(recorded)

    def drop_recorded(self) -> None:
        """Forget the remembered writes."""
        self._recorded = None

    def close(self) -> None:
        """Flush and let go of the folder."""
        with translated(self._folder):
            self._shard.close()

    def _update(self, operation: edge.UpdateOperation) -> None:
        self._synced = False
        with translated(self._folder):
            self._shard.update(operation)
        if self._recorded is not None:
            self._recorded.append(operation)

    def _set_fields(self, chosen: edge.Filter, fields: DocumentFields) -> None:
        self._update(edge.UpdateOperation.set_payload_by_filter(chosen, points.fields_payload(fields)))

    def _pages(
        self, chosen: edge.Filter, *, with_payload: bool | list[str], with_vector: bool | list[str] = False
    ) -> Iterator[list[edge.Record]]:
        offset: edge.PointId | None = None
        while True:
            request = edge.ScrollRequest(
                offset=offset, limit=_PAGE_POINTS, filter=chosen, with_payload=with_payload, with_vector=with_vector
            )
            with translated(self._folder):
                found, offset = self._shard.scroll(request)
            yield found
            if offset is None:
                return

    def _count(self, chosen: edge.Filter) -> int:
        with translated(self._folder):
            return self._shard.count(edge.CountRequest(exact=True, filter=chosen))

    def _search(self, query: edge.Query, limit: int, scope: Scope) -> list[IndexHit]:
        def read(point_ids: Sequence[PointId]) -> list[tuple[PointId, ChunkKey]]:
            found = self._shard.retrieve(list(point_ids), with_payload=points.CHUNK_KEY_FIELDS, with_vector=False)
            return [(record.id, points.read_chunk_key(scope.tenant, record.payload or {})) for record in found]

        request = edge.QueryRequest(limit=limit, query=query, filter=in_scope(scope), with_payload=False)
        with translated(self._folder):
            hits = self._shard.query(request)
            names = self._names.of([hit.id for hit in hits], read)
        return [IndexHit(name, hit.score) for name, hit in zip(names, hits, strict=True)]


def _config(dimension: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={points.DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
        sparse_vectors={points.SPARSE: edge.EdgeSparseVectorParams()},
        wal_enabled=True,
        max_search_threads=SEARCH_THREADS,
    )
