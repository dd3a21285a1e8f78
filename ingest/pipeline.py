"""Documents into the index: compare, cut, encode, write, verify, commit. Knows no service.

A document's new version is a generation: the journal gives out its number before anything is written, its chunks are
written and counted before its record is, and the journal closes the entry after that. Readers see the old version or
the new one; what a crash leaves behind stands in the journal, for ``ingest.collecting`` to clear away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from encoder.call_context import root_span
from encoder.errors import FingerprintMismatch, MambaSearchError, NotFound
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder, EncoderInfo
from ingest.chunk_encoding import ChunkEncoder, ChunksAlone, ChunksInOnePass
from ingest.chunking import Chunker
from ingest.committing import Committer
from ingest.cutting.cutter import Cutter, CutterHere
from ingest.document_locks import DocumentLocks
from ingest.documents import DEFAULT_TENANT, Document
from ingest.flow import Flow, Stages
from ingest.growing import GrowingEncoder
from ingest.index.interface import BATCH_CHUNKS_MAX, DocumentKey, VectorIndex
from ingest.journal import Attempt, Journal
from ingest.preparing import Preparer, checked
from ingest.read_ahead import Item, reading_ahead
from ingest.receipts import Progress, Receipt
from ingest.retrying import RETRY_DELAYS_S, with_retries
from ingest.slots import Batch, Batcher, Slot
from ingest.staging import OnStage, staged, untold
from ingest.states import StateStore
from ingest.writing import Writer

# Passages of several documents are encoded together: about two seconds of work for a CPU.
BATCH_TOKENS_MAX = 8192
BATCH_CHUNK_TOKENS = 64  # of shorter chunks, a batch has as many as it would of such ones
# No search takes longer, so that after it nobody reads chunks of an older generation any more.
COLLECT_AFTER_S = 60.0

_Result = TypeVar("_Result")


class Ingestor:
    """Ingests documents. Several streams may share one; several, also in other processes, may share an index."""

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex,
        chunker: Chunker,
        journal: Journal,
        *,
        chunk_encoder: ChunkEncoder | None = None,
        cutter: Cutter | None = None,
        states: StateStore | None = None,
        batch_tokens_max: int = BATCH_TOKENS_MAX,
        collect_after_s: float = COLLECT_AFTER_S,
        on_progress: Callable[[Progress], None] | None = None,
        on_stage: OnStage = untold,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    ) -> None:
        """Chunks are encoded alone unless ``chunk_encoder`` says otherwise, and cut here unless ``cutter`` does.

        ``cutter`` has to cut as ``chunker`` does; ``states`` are of documents that grow. ``on_stage`` is told how long
        each group of documents took to prepare and commit, and each batch of chunks to encode and write.
        """
        self._encoder = encoder
        self._index = index
        self._chunker = chunker
        self._journal = journal
        self._chunk_encoder = chunks = chunk_encoder or ChunksAlone()
        self._states = states
        self._batch_tokens_max = batch_tokens_max
        self._collect_after_s = collect_after_s
        self._on_progress = on_progress
        self._on_stage = on_stage
        self._retry_delays_s = retry_delays_s
        self._locks = DocumentLocks()
        self._preparer = Preparer(index, journal, cutter or CutterHere(chunker), self._retry)
        growing = GrowingEncoder(encoder, chunks, index, states) if isinstance(chunks, ChunksInOnePass) else None
        self._writer = Writer(
            encoder,
            chunks,
            index,
            journal,
            self._retry,
            self._report_encoded,
            self._report_written,
            on_stage,
            growing=growing,
            cut_whole=self._preparer.cut_whole,
        )
        self._committer = Committer(index, journal, self._retry, collect_after_s)
        self._stages = Stages(self._hold, self._prepare, self._write, self._settle, self._let_go)
        self.progress = Progress()
        self._held_since: dict[int, float] = {}  # of documents without a receipt, the oldest first
        self.last_trouble = ""  # for which something was tried again; progress.retries counts how often

    @property
    def oldest_s(self) -> float:
        """Say how long the oldest document that has no receipt has waited for it; 0 where there is none."""
        since = next(iter(self._held_since.values()), None)
        return 0.0 if since is None else time.monotonic() - since

    async def ingest(self, document: Document) -> Receipt:
        """Ingest one document; raises what it was rejected for, and what :meth:`ingest_all` raises."""
        async with aclosing(self.ingest_all([document])) as receipts:
            receipt = await anext(receipts)
        if receipt.error:
            raise receipt.error
        return receipt

    async def ingest_all(self, items: AsyncIterable[Item] | Iterable[Item]) -> AsyncGenerator[Receipt, None]:
        """Ingest a stream, reading ahead by a bounded amount; give a receipt for each item, in order.

        A document with a receipt is durable and searchable, or rejected for a reason of its own; the rest goes on. Two
        versions of one document are taken in order. An encoder, index or journal that is away, late or full is tried
        again for half a minute, then its error is raised: documents without a receipt may come again.

        :class:`FingerprintMismatch` where the encoder or the chunker is not the one that made the index;
        :class:`StorageFull` where the index or the journal cannot grow.
        """
        info = await self._retry(self._encoder.info)
        self._check_encoder(info)
        chunks_max = max(BATCH_CHUNKS_MAX, self._batch_tokens_max // BATCH_CHUNK_TOKENS)
        batcher = Batcher[Slot](
            min(chunks_max, info.batch_size_max),
            self._batch_tokens_max,
            whole_documents=self._chunk_encoder.reads_whole_documents,
        )
        async with reading_ahead(items) as ahead:
            flow = Flow(ahead, batcher, self._stages)
            try:
                while slots := await flow.settled():
                    for slot in slots:
                        assert slot.receipt is not None
                        yield slot.receipt
            finally:
                await flow.close()

    async def delete(self, document_id: str, tenant: str = DEFAULT_TENANT) -> int:
        """Take a document out of the index; say how many chunks it had. :class:`NotFound` where there is none."""
        key = DocumentKey(tenant, document_id)
        await self._locks.take([key])
        try:
            record = (await self._retry(lambda: self._index.get_records([key]))).get(key)
            if record is None:
                raise NotFound(f"There is no document {document_id!r} in the index.")
            fences = await self._retry(lambda: self._index.get_fences([key]))
            generation = (await self._retry(lambda: self._journal.begin([key], fences)))[key]
            deletion = Attempt(key, generation)
            try:
                await self._retry(lambda: self._index.delete_record(key, generation))
                await self._retry(self._index.flush)
                if self._states:
                    await asyncio.to_thread(self._states.forget, key)
                await self._retry(lambda: self._journal.finish_deletion(deletion, self._collect_after_s))
            finally:
                self._journal.let_go([deletion])
        finally:
            self._locks.release([key])
        return record.chunk_count

    def _check_encoder(self, info: EncoderInfo) -> None:
        chunks = self._chunk_encoder.fingerprint(self._chunker.fingerprint)
        fingerprint = index_fingerprint(info.fingerprint, chunks)
        if (fingerprint, info.dimension) != (self._index.fingerprint, self._index.dimension):
            raise FingerprintMismatch(
                f"The index was made with {self._index.fingerprint} (dimension {self._index.dimension}), but "
                f"{fingerprint} (dimension {info.dimension}) would write to it; use that model, or a new index."
            )
        self._chunk_encoder.check(info, self._chunker)

    async def _hold(self, group: Sequence[Item], before_waiting: Callable[[], Awaitable[None]]) -> list[Slot]:
        slots = [checked(item) for item in group]
        now = time.monotonic()
        keys = _keys(slots)
        if not self._locks.try_take(keys):
            await before_waiting()
            await self._locks.take(keys)
        self._held_since |= {id(slot): now for slot in slots}
        return slots

    async def _prepare(self, slots: Sequence[Slot]) -> None:
        with staged("prepare", self._on_stage, count=len(slots), alone=True):
            await self._preparer.prepare(slots)
        self._report(
            bytes_cut=self.progress.bytes_cut + sum(slot.text_bytes for slot in slots),
            chunks_cut=self.progress.chunks_cut + sum(len(slot.chunks) for slot in slots),
        )

    async def _write(self, batch: Batch[Slot]) -> None:
        with root_span("ingest batch", {"count": len(batch)}):
            await self._writer.write(batch)

    async def _settle(self, slots: Sequence[Slot]) -> None:
        try:
            with staged("commit", self._on_stage, count=len(slots), alone=True):
                await self._committer.settle(slots)
        finally:
            self._let_go(slots)
        for slot in slots:
            self._count(slot)

    def _let_go(self, slots: Sequence[Slot]) -> None:
        """Let others have documents; what has begun and not ended is settled by whoever clears away."""
        for slot in slots:
            self._held_since.pop(id(slot), None)
        self._journal.let_go(Attempt(slot.key, slot.generation) for slot in slots)
        self._locks.release(_keys(slots))

    def _count(self, slot: Slot) -> None:
        """Add a document that has its receipt to the progress, and keep no more of it than that."""
        assert slot.receipt is not None
        slot.document, slot.chunks, slot.sparse = None, (), ()
        name = slot.receipt.outcome.value
        self._report(
            documents=self.progress.documents + 1,
            text_bytes=self.progress.text_bytes + slot.text_bytes,
            **{name: getattr(self.progress, name) + 1},
        )

    async def _retry(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        return await with_retries(call, self._retry_delays_s, self._note_trouble)

    def _note_trouble(self, error: MambaSearchError) -> None:
        self.last_trouble = str(error)
        self._report(retries=self.progress.retries + 1)

    def _report_encoded(self, chunks: int, tokens: int) -> None:
        self._report(
            chunks_encoded=self.progress.chunks_encoded + chunks, tokens_encoded=self.progress.tokens_encoded + tokens
        )

    def _report_written(self, chunks: int, tokens: int) -> None:
        self._report(chunks=self.progress.chunks + chunks, tokens=self.progress.tokens + tokens)

    def _report(self, **counts: int) -> None:
        self.progress = replace(self.progress, **counts)
        if self._on_progress:
            self._on_progress(self.progress)


def _keys(slots: Sequence[Slot]) -> list[DocumentKey]:
    return [slot.key for slot in slots if slot.document is not None]
