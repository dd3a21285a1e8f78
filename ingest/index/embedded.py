"""The index inside this process, on the embedded engine: one directory, one process. Fulfils ``VectorIndex``."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable, MambaSearchError
from ingest.index import points, records
from ingest.index.data_directory import WRITE_BYTES_MIN, DataDirectory, Manifest, check_made_by
from ingest.index.engine import Engine
from ingest.index.gathering import TOGETHER_MAX, Gathering
from ingest.index.interface import (
    READ_MAX,
    DocumentKey,
    DocumentRecord,
    IndexedChunk,
    IndexHit,
    IndexStats,
    Scope,
    SparseVector,
    StoredChunk,
)
from ingest.index.optimizing import optimize_in_child

logger = logging.getLogger(__name__)

# The write-ahead log is replayed on opening: flushing keeps it short (20 ms each).
FLUSH_CHUNKS = 2000
# Below this, scanning all vectors takes a few milliseconds. Above, the graphs are renewed when half as many points
# again have come: all renewals together then cost three times the last one.
OPTIMIZE_POINTS_MIN = 20_000
# Writes wait while an optimization has this many to catch up with (about 200 MB).
RECORDED_POINTS_MAX = 50_000
# Catching up goes in steps of so many writes, a few milliseconds each, so that searches come in between.
REPLAY_OPERATIONS = 16

_Result = TypeVar("_Result")


class EmbeddedIndex:
    """Runs the engine's blocking calls one after another on a thread of its own."""

    def __init__(self, directory: DataDirectory, engine: Engine, manifest: Manifest, optimize_points_min: int) -> None:
        self.fingerprint = manifest.fingerprint
        self.dimension = manifest.dimension
        self._directory = directory
        self._engine = engine
        self._manifest = manifest
        self._optimize_points_min = optimize_points_min
        self._points = engine.count_points()
        self._unflushed = 0
        self._recorded_points = 0
        self._closed = False
        self._optimization: asyncio.Task[None] | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="index")
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
            engine = await asyncio.to_thread(_open_engine, held, manifest)
        except BaseException:
            held.release()
            raise
        return cls(held, engine, manifest, optimize_points_min)

    def check_made_by(self, *, dimension: int, fingerprint: str) -> None:
        """Raise :class:`FingerprintMismatch` where another model or chunker made the index."""
        check_made_by(self._manifest, self._directory.path, fingerprint=fingerprint, dimension=dimension)

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks."""
        points.check_batch(chunks, self.dimension)
        if not chunks:
            return
        await self._write(lambda: self._upsert(chunks), len(chunks))
        self.optimize_when_due()

    async def count_chunks(self, key: DocumentKey, *generations: int) -> int:
        """Count the chunks of some generations."""
        return await self._counting.ask((key, generations))

    async def commit_record(self, record: DocumentRecord, *, in_place_of: int | None = None) -> bool:
        """Make a generation the visible one, unless it is fenced."""
        points.check_generation(record.generation)
        _, after = await self._changing.ask((record.key, records.committing(record, in_place_of=in_place_of)))
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

    async def get_records(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, DocumentRecord]:
        """Read the records that exist."""
        points.check_read("keys", len(keys))
        return records.committed(await self._run(lambda: self._engine.get_states(keys)))

    async def list_records(self, tenant: str | None, after: str, limit: int) -> tuple[list[DocumentRecord], str]:
        """Read a page of a tenant's records."""
        points.check_limit(limit, READ_MAX)
        start = points.page_start(after)
        return await self._run(lambda: self._engine.list_records(tenant, start, limit))

    async def get_chunks(self, key: DocumentKey, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks, in order."""
        points.check_read("last", last - first + 1)
        return await self._run(lambda: self._engine.get_chunks(key, generation, first, last))

    async def delete_record(self, key: DocumentKey, generation: int) -> bool:
        """Leave a tombstone; on a disk that is nearly full, too, since the chunks can go then."""
        points.check_generation(generation)
        change = records.deleting(generation)
        ((before, after),) = await self._run(lambda: self._engine.change_records([(key, change)]))
        return records.deleted_by(before, after)

    async def drop_tombstone(self, key: DocumentKey, generation: int) -> None:
        """Forget a tombstone of just this generation."""
        await self._run(lambda: self._engine.drop_tombstone(key, generation))

    async def delete_chunks(
        self, key: DocumentKey, *, generation: int | None = None, below: int | None = None, keep: Collection[int] = ()
    ) -> int:
        """Delete one generation, or all below one but those to keep."""
        points.check_chosen(generation, below, keep)
        return await self._run(lambda: self._engine.delete_chunks(key, generation=generation, below=below, keep=keep))

    async def search_dense(self, embedding: NDArray[np.float32], limit: int, scope: Scope) -> list[IndexHit]:
        """Find the nearest chunks."""
        points.check_limit(limit)
        points.check_embedding(embedding, self.dimension)
        points.check_scope(scope)
        if points.is_empty(scope):
            return []
        return await self._run(lambda: self._engine.search_dense(embedding, limit, scope))

    async def search_sparse(self, sparse: SparseVector, limit: int, scope: Scope) -> list[IndexHit]:
        """Find the best chunks by BM25."""
        points.check_limit(limit)
        points.check_scope(scope)
        if points.is_empty(scope) or not len(sparse.indices):
            return []
        return await self._run(lambda: self._engine.search_sparse(sparse, limit, scope))

    async def stats(self) -> IndexStats:
        """Count documents and chunks."""
        return await self._run(self._engine.stats)

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
            await asyncio.get_running_loop().run_in_executor(self._executor, self._engine.close)
            if hand_over:
                await asyncio.to_thread(hand_over)
        finally:
            self._executor.shutdown(wait=False)
            self._directory.release()

    async def optimize(self) -> None:
        """Build graphs over all dense vectors, in a child process; searches and writes go on meanwhile.

        :class:`StorageFull` where the disk cannot hold a second copy.
        """
        number = self._manifest.engine_number + 1
        draft = self._directory.engine_folder(number)
        try:
            points_count = await self._run(lambda: self._copy_engine(draft))
            await optimize_in_child(draft)
            optimized = await self._run(lambda: Engine.load(draft))
            while await self._run(lambda: self._engine.replay_recorded(optimized, REPLAY_OPERATIONS)):
                pass
            await self._run(lambda: self._adopt_engine(optimized, number, points_count))
        finally:
            await self._run(self._end_optimization)

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

    def _copy_engine(self, draft: Path) -> int:
        """Copy the engine's files while it is closed; searches wait that long."""
        folder = self._directory.engine_folder(self._manifest.engine_number)
        self._engine.flush()
        self._directory.check_copy(folder)
        points_count = self._engine.count_points()
        self._engine.close()
        try:
            shutil.copytree(folder, draft)
        finally:
            self._engine = Engine.load(folder)
        self._engine.start_recording()
        self._recorded_points = 0
        return points_count

    def _adopt_engine(self, optimized: Engine, number: int, points_count: int) -> None:
        """Let the optimized copy take over, brought up to date: nothing else runs on this thread meanwhile."""
        while self._engine.replay_recorded(optimized, REPLAY_OPERATIONS):
            pass
        optimized.flush()
        manifest = self._manifest.model_copy(update={"engine_number": number, "optimized_points": points_count})
        self._directory.write_manifest(manifest)
        old, self._engine, self._manifest = self._engine, optimized, manifest
        old.close()

    def _end_optimization(self) -> None:
        self._engine.drop_recorded()
        self._directory.remove_engines(keep=self._manifest.engine_number)

    def _upsert(self, chunks: Sequence[IndexedChunk]) -> None:
        self._engine.upsert_chunks(chunks)
        self._points += len(chunks)
        self._unflushed += len(chunks)
        if self._unflushed >= FLUSH_CHUNKS:
            self._flush()

    def _flush(self) -> None:
        self._engine.flush()
        self._unflushed = 0

    async def _count_all(self, wanted: Sequence[tuple[DocumentKey, Collection[int]]]) -> list[int]:
        return await self._run(lambda: [self._engine.count_chunks(*one) for one in wanted])

    async def _change_all(
        self, changes: Sequence[tuple[DocumentKey, records.Change]]
    ) -> list[tuple[records.RecordState | None, records.RecordState | None]]:
        return await self._write(lambda: self._engine.change_records(changes), len(changes))

    async def _write(self, call: Callable[[], _Result], points_count: int = 1) -> _Result:
        if self._optimization and self._recorded_points >= RECORDED_POINTS_MAX:
            await asyncio.wait([self._optimization])

        def checked() -> _Result:
            self._directory.check_write()
            self._recorded_points += points_count
            return call()

        return await self._run(checked)

    async def _run(self, call: Callable[[], _Result]) -> _Result:
        if self._closed:
            raise IndexUnavailable(f"The index in {self._directory.path} is closed; open it again.")
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _open_engine(directory: DataDirectory, manifest: Manifest) -> Engine:
    directory.remove_engines(keep=manifest.engine_number)
    folder = directory.engine_folder(manifest.engine_number)
    if folder.exists():
        return Engine.load(folder)
    directory.check_write()
    return Engine.create(folder, manifest.dimension)
