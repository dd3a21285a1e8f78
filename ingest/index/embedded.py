"""The index inside this process, on the embedded engine: one directory, one process. Fulfils ``VectorIndex``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable, MambaSearchError
from ingest.index import points, records
from ingest.index.committed_terms import CommittedTerms
from ingest.index.data_directory import WRITE_BYTES_MIN, DataDirectory, Manifest, check_made_by
from ingest.index.describing import describe
from ingest.index.engine import Engine
from ingest.index.fields import DocumentFields
from ingest.index.finding import find
from ingest.index.gathering import TOGETHER_MAX, Gathering
from ingest.index.interface import (
    READ_MAX,
    ChunkKey,
    DocumentKey,
    DocumentRecord,
    HitsRead,
    IndexAnswer,
    IndexedChunk,
    IndexStats,
    ReadConsistency,
    Scope,
    SparseVector,
    StoredChunk,
)
from ingest.index.optimizing import copy_folder, optimize_in_child
from ingest.index.turns import Turns

if TYPE_CHECKING:
    from qdrant_edge import Payload

logger = logging.getLogger(__name__)

# A search waits for a write that has begun: a batch is written in parts, of some milliseconds each.
UPSERT_AT_ONCE = 32
# The write-ahead log is replayed on opening: flushing keeps it short (20 ms each).
FLUSH_CHUNKS = 2000
# Below this, scanning all vectors takes a few milliseconds. Above, the graphs are renewed when half as many points
# again have come: all renewals together then cost three times the last one.
OPTIMIZE_POINTS_MIN = 20_000
# Writes wait while an optimization has this many to catch up with (about 200 MB).
RECORDED_POINTS_MAX = 50_000
# Catching up goes in steps of so many writes, a few milliseconds each: searches come in between.
REPLAY_OPERATIONS = 16

_Result = TypeVar("_Result")
_Changes: TypeAlias = Sequence[tuple[DocumentKey, records.Change]]
_States: TypeAlias = list[tuple[records.RecordState | None, records.RecordState | None]]  # before and after each


class EmbeddedIndex:
    """Runs the engine's blocking calls one after another on a thread of its own, searches first."""

    def __init__(
        self,
        directory: DataDirectory,
        engine: Engine,
        terms: CommittedTerms,
        manifest: Manifest,
        optimize_points_min: int,
    ) -> None:
        self.fingerprint = manifest.fingerprint
        self.dimension = manifest.dimension
        self._directory = directory
        self._engine = engine
        self._terms = terms
        self._manifest = manifest
        self._optimize_points_min = optimize_points_min
        self._points = engine.count_points()
        self._unflushed = self._recorded_points = 0
        self._closed = False
        self._optimization: asyncio.Task[None] | None = None
        self._turns = Turns("index")
        self._copied = asyncio.Event()  # clear while the engine's files are copied: nothing is written then
        self._copied.set()
        # What many documents ask for in one moment is one turn of that thread, and one write.
        self._counting = Gathering(self._count_all, TOGETHER_MAX)
        self._changing = Gathering(self._change_all, TOGETHER_MAX)

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        dimension: int,
        fingerprint: str,
        write_bytes_min: int = WRITE_BYTES_MIN,
        optimize_points_min: int = OPTIMIZE_POINTS_MIN,
    ) -> Self:
        """Open the index in a directory, or make one.

        :class:`InUse` where another process holds it; :class:`FingerprintMismatch` where another model or chunker
        made it; :class:`StorageFull` where the disk is (nearly) full; :class:`IndexUnavailable` where it is damaged.
        Writing is refused while less than ``write_bytes_min`` bytes of the disk are free.
        """
        held = await asyncio.to_thread(DataDirectory.hold, directory, write_bytes_min=write_bytes_min)
        try:
            manifest = await asyncio.to_thread(held.bind, dimension=dimension, fingerprint=fingerprint)
            engine = await asyncio.to_thread(Engine.open, held, manifest)
            terms = await asyncio.to_thread(CommittedTerms.read, engine)
        except BaseException:
            held.release()
            raise
        index = cls(held, engine, terms, manifest, optimize_points_min)
        try:
            for key in await index._read(lambda: index._engine.list_describing()):
                await index._describe(key)
        except BaseException:
            await index.close()
            raise
        return index

    def check_made_by(self, *, dimension: int, fingerprint: str) -> None:
        """Raise :class:`FingerprintMismatch` where another model or chunker made the index."""
        check_made_by(self._manifest, self._directory.path, fingerprint=fingerprint, dimension=dimension)

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks."""
        points.check_batch(chunks, self.dimension)
        await self._index_ranges(chunk.fields for chunk in chunks)
        parts = [chunks[start : start + UPSERT_AT_ONCE] for start in range(0, len(chunks), UPSERT_AT_ONCE)]
        for failure in filter(None, await asyncio.gather(*map(self._upsert, parts), return_exceptions=True)):
            raise failure
        self.optimize_when_due()

    async def count_chunks(self, key: DocumentKey, *generations: int) -> int:
        """Count the chunks of some generations."""
        return await self._counting.ask((key, generations))

    async def commit_record(self, record: DocumentRecord, *, in_place_of: int | None = None) -> bool:
        """Make a generation the visible one, unless it is fenced."""
        points.check_generation(record.generation)
        _, after = await self._changing.ask((record.key, records.committing(record, in_place_of=in_place_of)))
        if after is not None and after.describing:
            await self._describe(record.key)
        return after is not None

    async def fence(self, key: DocumentKey, generation: int) -> DocumentRecord | None:
        """Refuse commits up to a generation; give the committed record."""
        points.check_generation(generation, 0)
        _, after = await self._changing.ask((key, records.fencing(generation)))
        return after.record if after else None

    async def get_fences(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        """Read how far documents are fenced."""
        points.check_read("keys", len(keys))
        return records.fences(await self._run(lambda: self._engine.get_states(keys)))

    async def get_records(
        self,
        keys: Sequence[DocumentKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,  # noqa: ARG002 - there is one copy
    ) -> dict[DocumentKey, DocumentRecord]:
        """Read the records that exist."""
        points.check_read("keys", len(keys))
        return records.committed(await self._read(lambda: self._engine.get_states(keys)))

    async def list_records(self, tenant: str | None, after: str, limit: int) -> tuple[list[DocumentRecord], str]:
        """Read a page of a tenant's records."""
        points.check_limit(limit, READ_MAX)
        return await self._run(lambda: self._engine.list_records(tenant, points.page_start(after), limit))

    async def get_chunks(self, key: DocumentKey, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks, in order."""
        points.check_read("last", last - first + 1)
        return await self._read(lambda: self._engine.get_chunks(key, generation, first, last))

    async def read_chunks(
        self,
        chunks: Sequence[ChunkKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,  # noqa: ARG002 - there is one copy
    ) -> dict[ChunkKey, StoredChunk]:
        """Read the chunks that exist."""
        points.check_read("chunks", len(chunks))
        return await self._read(lambda: self._engine.read_chunks(chunks))

    async def read_hits(
        self,
        chunks: Sequence[ChunkKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,  # noqa: ARG002 - there is one copy
    ) -> HitsRead:
        """Read the chunks that exist, and their documents' records."""
        return points.read_hits(await self._hit_payloads(chunks))

    async def get_embeddings(self, chunks: Sequence[ChunkKey]) -> dict[ChunkKey, NDArray[np.float32]]:
        """Read the embeddings of the chunks that exist."""
        points.check_read("chunks", len(chunks))
        return await self._read(lambda: self._engine.get_embeddings(chunks))

    async def delete_record(self, key: DocumentKey, generation: int) -> bool:
        """Leave a tombstone; on a disk that is nearly full, too, since the chunks can go then."""
        points.check_generation(generation)
        ((before, after),) = await self._run(lambda: self._change([(key, records.deleting(generation))]))
        return records.deleted_by(before, after)

    async def drop_tombstone(self, key: DocumentKey, generation: int) -> None:
        """Forget a tombstone of just this generation."""
        await self._run(lambda: self._terms.drop_tombstone(self._engine, key, generation))

    async def delete_chunks(
        self, key: DocumentKey, *, generation: int | None = None, below: int | None = None, keep: Collection[int] = ()
    ) -> int:
        """Delete one generation, or all below one but those to keep."""
        points.check_chosen(generation, below, keep)
        return await self._run(
            lambda: self._terms.delete(self._engine, key, generation=generation, below=below, keep=keep)
        )

    async def search(
        self,
        embedding: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        limit: int,
        scope: Scope,
        *,
        read_first: int = 0,
    ) -> IndexAnswer:
        """Find the nearest chunks, and the best by BM25."""
        answer, payloads = await self._find(embedding, sparse, limit, scope, read_first)
        return replace(answer, read=points.read_hits(payloads))

    async def stats(self) -> IndexStats:
        """Count documents and chunks."""
        return await self._read(lambda: self._terms.stats(self._engine))

    async def flush(self) -> None:
        """Write to the disk what only memory holds, where anything was written."""
        await self._run(lambda: self._engine.sync())

    async def give_way(self, draft: Path) -> None:
        """Close, and have the index of another directory, which is closed, in the place of this one; then let go."""
        await self.close(hand_over=lambda: self._directory.adopt(draft))

    async def close(self, hand_over: Callable[[], None] | None = None) -> None:
        """Flush, let go of the directory, before which ``hand_over`` is called. A second call does nothing."""
        if self._closed:
            return
        if self._optimization:
            self._optimization.cancel()
            await asyncio.wait([self._optimization])
        self._closed = True
        try:
            await self._turns.run(lambda: self._engine.close(), search=False)
            if hand_over:
                await asyncio.to_thread(hand_over)
        finally:
            self._turns.end()
            self._directory.release()

    async def optimize(self) -> None:
        """Build graphs over all dense vectors, in a child process; searches and writes go on meanwhile.

        :class:`StorageFull` where the disk cannot hold a second copy.
        """
        number = self._manifest.engine_number + 1
        draft = self._directory.engine_folder(number)
        try:
            points_count = await self._copy_engine(draft)
            await optimize_in_child(draft)
            optimized = await self._run(lambda: Engine.load(draft))
            while await self._run(lambda: self._engine.replay_recorded(optimized, REPLAY_OPERATIONS)):
                pass
            await self._run(lambda: self._adopt_engine(optimized, number, points_count))
        finally:
            await self._run(self._end_optimization)

    @property
    def is_optimizing(self) -> bool:
        """Say whether :meth:`optimize` is under way."""
        return self._optimization is not None

    def optimize_when_due(self) -> None:
        """Start :meth:`optimize` in the background where enough points have come since the last time."""
        optimized = self._manifest.optimized_points
        if self._optimization is None and self._points - optimized >= max(self._optimize_points_min, optimized // 2):
            self._optimization = asyncio.create_task(self._optimize_quietly())

    async def _optimize_quietly(self) -> None:
        try:
            await self.optimize()
        except (MambaSearchError, OSError) as error:
            # Searches stay right without graphs, only slower: try again when as many points again have come.
            logger.warning("the index was not optimized: %s", error)
            self._manifest = self._manifest.model_copy(update={"optimized_points": self._points})
        finally:
            self._optimization = None

    async def _copy_engine(self, draft: Path) -> int:
        """Copy the engine's files, all of them flushed, while nothing is written; searches go on."""
        folder = self._directory.engine_folder(self._manifest.engine_number)
        self._copied.clear()
        try:
            # Their turns come after those of all writes that did not wait.
            await self._turns.run(lambda: self._engine.flush(), search=False)
            points_count = await self._turns.run(lambda: self._engine.count_points(), search=False)
            await asyncio.to_thread(self._directory.check_copy, folder)
            await copy_folder(folder, draft)
            self._engine.start_recording()
            self._recorded_points = 0
        finally:
            self._copied.set()
        return points_count

    def _adopt_engine(self, optimized: Engine, number: int, points_count: int) -> None:
        """Let the optimized copy take over, brought up to date: nothing else runs on this thread meanwhile."""
        self._engine.replay_recorded(optimized)
        optimized.flush()
        manifest = self._manifest.model_copy(update={"engine_number": number, "optimized_points": points_count})
        self._directory.write_manifest(manifest)
        old, self._engine, self._manifest = self._engine, optimized, manifest
        old.close()

    def _end_optimization(self) -> None:
        self._engine.drop_recorded()
        self._directory.remove_engines(keep=self._manifest.engine_number)

    async def _upsert(self, chunks: Sequence[IndexedChunk]) -> None:
        await self._write(lambda: self._terms.upsert(self._engine, chunks), len(chunks))
        self._points += len(chunks)
        self._unflushed += len(chunks)
        if self._unflushed >= FLUSH_CHUNKS:
            self._unflushed = 0
            await self._run(self._engine.flush)

    async def _find(
        self, embedding: NDArray[np.float32] | None, sparse: SparseVector | None, limit: int, scope: Scope, first: int
    ) -> tuple[IndexAnswer, list[Payload]]:
        points.check_search(embedding, self.dimension, limit, scope, first)
        return await self._read(lambda: find(self._engine, self._terms, embedding, sparse, limit, scope, first))

    async def _hit_payloads(self, chunks: Sequence[ChunkKey]) -> list[Payload]:
        points.check_read("chunks", len(chunks))
        return await self._read(lambda: self._engine.get_payloads(points.hit_point_ids(chunks)))

    async def _describe(self, key: DocumentKey) -> None:
        async def read(key: DocumentKey) -> records.RecordState | None:
            return (await self._read(lambda: self._engine.get_states([key]))).get(key)

        async def set_fields(ids: Sequence[str], fields: DocumentFields) -> None:
            await self._index_ranges([fields])
            await self._write(lambda: self._engine.set_fields(ids, fields), len(ids))

        await describe(key, read, set_fields, lambda key, change: self._changing.ask((key, change)))

    async def _index_ranges(self, written: Iterable[DocumentFields | None]) -> None:
        """Index numbers and times of new names, a turn for each: searches come in between."""
        for name in self._engine.new_ranges(name for fields in written if fields for name in fields.ranges):
            await self._write(lambda: self._engine.index_ranges([name]))  # noqa: B023 - its turn ends before the next

    async def _count_all(self, wanted: Sequence[tuple[DocumentKey, Collection[int]]]) -> list[int]:
        return await self._run(lambda: [self._engine.count_chunks(*one) for one in wanted])

    def _change(self, changes: _Changes) -> _States:
        found = self._engine.plan_changes(changes)
        self._terms.change(self._engine, [key for key, _ in changes], found)
        return found

    async def _change_all(self, changes: _Changes) -> _States:
        return await self._write(lambda: self._change(changes), len(changes))

    async def _write(self, call: Callable[[], _Result], points_count: int = 1) -> _Result:
        if self._optimization and self._recorded_points >= RECORDED_POINTS_MAX:
            await asyncio.wait([self._optimization])

        def checked() -> _Result:
            self._directory.check_write()
            self._recorded_points += points_count
            return call()

        return await self._run(checked)

    async def _read(self, call: Callable[[], _Result]) -> _Result:
        """Run what a search asks: before all writes that have not begun."""
        self._check_open()
        return await self._turns.run(call, search=True)

    async def _run(self, call: Callable[[], _Result]) -> _Result:
        """Run what writers ask, one after another."""
        await self._copied.wait()
        self._check_open()
        return await self._turns.run(call, search=False)

    def _check_open(self) -> None:
        if self._closed:
            raise IndexUnavailable(f"The index in {self._directory.path} is closed; open it again.")
