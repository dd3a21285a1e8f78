"""Documents into the index: read the record, cut, encode, write, verify, commit, clear away. Knows no service.

A document's new version is a generation: its chunks are written and counted before its record is, so that readers see
the old version or the new one. What a crash leaves behind is cleared when the document comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import TypeVar

from encoder.errors import (
    FingerprintMismatch,
    IndexUnavailable,
    InvalidInput,
    MambaSearchError,
    NotFound,
)
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder, EncoderInfo
from encoder.passage_text import join_passage
from ingest.chunk_encoding import ChunkedDocument, ChunkEncoder, ChunksAlone
from ingest.chunking import Chunk, Chunker
from ingest.document_locks import DocumentLocks
from ingest.documents import Document, check_document
from ingest.index.interface import BATCH_CHUNKS_MAX, DocumentRecord, IndexedChunk, StoredChunk, VectorIndex
from ingest.read_ahead import Item, reading_ahead
from ingest.receipts import LoadError, Outcome, Progress, Receipt
from ingest.retrying import RETRY_DELAYS_S, with_retries
from ingest.sparse import sparse_passage

# Passages of several documents are encoded together: about two seconds of work for a CPU.
BATCH_TOKENS_MAX = 8192
BATCH_CHUNK_TOKENS = 64  # of shorter chunks, a batch has as many as it would of such ones
# While one batch is written to the index, others are being encoded.
BATCHES_IN_FLIGHT = 3

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Slot:
    """One item of a group on its way; the receipt is there when nothing is left to do."""

    document_id: str
    source: str
    text_bytes: int = 0
    receipt: Receipt | None = None
    document: Document | None = None
    content_hash: str = ""
    generation: int = 1
    title: str = ""
    chunks: Sequence[Chunk] = ()
    outstanding: int = 0  # chunks neither written nor given up
    error: InvalidInput | None = None  # found while writing


_Batch = list[tuple[_Slot, Chunk]]


class Ingestor:
    """Ingests documents; several streams may share one, but an index has only one ingestor that writes to it."""

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex,
        chunker: Chunker,
        *,
        chunk_encoder: ChunkEncoder | None = None,
        batch_tokens_max: int = BATCH_TOKENS_MAX,
        on_progress: Callable[[Progress], None] | None = None,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    ) -> None:
        """Chunks are encoded alone unless ``chunk_encoder`` says otherwise."""
        self._encoder = encoder
        self._index = index
        self._chunker = chunker
        self._chunk_encoder = chunk_encoder or ChunksAlone()
        self._batch_tokens_max = batch_tokens_max
        self._on_progress = on_progress
        self._retry_delays_s = retry_delays_s
        self._batch_size_max = 1  # until the encoder has said how many it takes
        self._locks = DocumentLocks()
        self.progress = Progress()

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
        versions of one document are taken in order. An encoder or index that is away, late or full is tried again for
        half a minute, then its error is raised: documents without a receipt are then not ingested, and may come again.

        :class:`FingerprintMismatch` where the encoder or the chunker is not the one that made the index;
        :class:`StorageFull` where the index cannot grow.
        """
        self._check_encoder(await self._retry(self._encoder.info))
        async with reading_ahead(items) as ahead:
            while group := await ahead.next_group():
                ids = [item.document_id for item in group if isinstance(item, Document)]
                async with self._locks.hold(ids), aclosing(self._ingest_group(group)) as receipts:
                    async for receipt in receipts:
                        yield receipt

    async def delete(self, document_id: str) -> int:
        """Take a document out of the index; say how many chunks it had. :class:`NotFound` where there is none."""
        async with self._locks.hold([document_id]):
            records = await self._retry(lambda: self._index.get_records([document_id]))
            count = await self._retry(lambda: self._index.delete_document(document_id))
        if document_id not in records:
            raise NotFound(f"There is no document {document_id!r} in the index.")
        return count

    def _check_encoder(self, info: EncoderInfo) -> None:
        chunks = self._chunk_encoder.fingerprint(self._chunker.fingerprint)
        fingerprint = index_fingerprint(info.fingerprint, chunks)
        if (fingerprint, info.dimension) != (self._index.fingerprint, self._index.dimension):
            raise FingerprintMismatch(
                f"The index was made with {self._index.fingerprint} (dimension {self._index.dimension}), but "
                f"{fingerprint} (dimension {info.dimension}) would write to it; use that model, or a new index."
            )
        self._chunk_encoder.check(info, self._chunker)
        chunks_max = max(BATCH_CHUNKS_MAX, self._batch_tokens_max // BATCH_CHUNK_TOKENS)
        self._batch_size_max = min(chunks_max, info.batch_size_max)

    async def _ingest_group(self, group: Sequence[Item]) -> AsyncGenerator[Receipt, None]:
        slots = await self._prepare(group)
        waiting = deque(slots)
        async with aclosing(self._written(slots)) as written:
            async for _ in written:
                while waiting and not waiting[0].outstanding:
                    yield await self._settle(waiting.popleft())
        while waiting:
            yield await self._settle(waiting.popleft())

    async def _prepare(self, group: Sequence[Item]) -> list[_Slot]:
        """Find out what is to be done for each item, and clear away what earlier attempts left."""
        slots = [_check(item) for item in group]
        documents = [slot.document_id for slot in slots if slot.receipt is None]
        records = await self._retry(lambda: self._index.get_records(documents))
        work = [self._prepare_document(slot, records.get(slot.document_id)) for slot in slots if slot.receipt is None]
        # All of them are waited for, also where one fails: none may write once the documents are no longer held.
        for failure in await asyncio.gather(*work, return_exceptions=True):
            if failure:
                raise failure
        return slots

    async def _prepare_document(self, slot: _Slot, record: DocumentRecord | None) -> None:
        document, committed = slot.document, record.generation if record else 0
        assert document is not None
        await self._retry(lambda: self._index.delete_generations(slot.document_id, keep=committed))
        slot.content_hash = await asyncio.to_thread(document.content_hash)
        if record and record.content_hash == slot.content_hash:
            count = await self._retry(lambda: self._index.count_chunks(slot.document_id, committed))
            if count == record.chunk_count:
                slot.receipt = Receipt(
                    slot.document_id, slot.source, Outcome.UNCHANGED, count, record.token_count, committed
                )
                return
        try:
            slot.chunks = await asyncio.to_thread(self._chunker.chunk, document)
        except InvalidInput as error:
            slot.receipt = _rejection(slot, error)
            return
        slot.title = self._chunker.passage_title(document.title)
        slot.generation = committed + 1
        slot.outstanding = len(slot.chunks)

    async def _written(self, slots: Sequence[_Slot]) -> AsyncGenerator[None, None]:
        """Encode and write the chunks of a group, a few batches at once; yield after each batch."""
        tasks: deque[asyncio.Task[None]] = deque()
        try:
            whole = self._chunk_encoder.reads_whole_documents
            for batch in _batches(slots, self._batch_size_max, self._batch_tokens_max, whole_documents=whole):
                if len(tasks) == BATCHES_IN_FLIGHT:
                    await tasks.popleft()
                    yield
                tasks.append(asyncio.create_task(self._write(batch)))
            while tasks:
                await tasks.popleft()
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, batch: _Batch) -> None:
        """Encode and write a batch; where it is refused, each document alone, to find the one at fault."""
        for slot, _ in batch:
            slot.outstanding -= slot.error is not None
        batch = [(slot, chunk) for slot, chunk in batch if slot.error is None]
        if not batch:
            return
        titles = {slot.document_id: slot.title for slot, _ in batch}
        documents = [
            ChunkedDocument(titles[document_id], [chunk.text for _, chunk in chunks])
            for document_id, chunks in groupby(batch, key=lambda item: item[0].document_id)
        ]
        passages = [join_passage(slot.title, chunk.text) for slot, chunk in batch]
        try:
            embeddings = await self._retry(lambda: self._chunk_encoder.encode(self._encoder, documents))
            sparse = await asyncio.to_thread(lambda: [sparse_passage(passage) for passage in passages])
            vectors = zip(embeddings, sparse, strict=True)
            points = [
                IndexedChunk(_stored(slot, chunk), *pair) for (slot, chunk), pair in zip(batch, vectors, strict=True)
            ]
            for start in range(0, len(points), BATCH_CHUNKS_MAX):
                await self._retry(partial(self._index.upsert_chunks, points[start : start + BATCH_CHUNKS_MAX]))
        except InvalidInput as error:
            owners = {slot.document_id: slot for slot, _ in batch}
            if len(owners) == 1:
                slot = batch[0][0]
                slot.error = InvalidInput("text", f"{slot.document_id} cannot be encoded: {error}")
                slot.outstanding -= len(batch)
                return
            for owner in owners.values():
                await self._write([(slot, chunk) for slot, chunk in batch if slot is owner])
            return
        for slot, _ in batch:
            slot.outstanding -= 1
        self._report(
            chunks=self.progress.chunks + len(batch),
            tokens=self.progress.tokens + sum(chunk.token_count for _, chunk in batch),
        )

    async def _settle(self, slot: _Slot) -> Receipt:
        """Verify and commit a document whose chunks are written; give its receipt."""
        if slot.receipt is None:
            slot.receipt = await (self._withdraw(slot, slot.error) if slot.error else self._commit(slot))
        counted = {Outcome.INGESTED: "ingested", Outcome.UNCHANGED: "unchanged", Outcome.REJECTED: "rejected"}
        name = counted[slot.receipt.outcome]
        self._report(
            documents=self.progress.documents + 1,
            text_bytes=self.progress.text_bytes + slot.text_bytes,
            **{name: getattr(self.progress, name) + 1},
        )
        slot.document, slot.chunks = None, ()
        return slot.receipt

    async def _commit(self, slot: _Slot) -> Receipt:
        document, chunk_count = slot.document, len(slot.chunks)
        assert document is not None
        found = await self._retry(lambda: self._index.count_chunks(slot.document_id, slot.generation))
        if found != chunk_count:
            message = f"The index holds {found} of {chunk_count} chunks of {slot.document_id}; ingest it again."
            return await self._withdraw(slot, IndexUnavailable(message))
        record = DocumentRecord(
            document_id=slot.document_id,
            title=document.title,
            source=document.source,
            generation=slot.generation,
            chunk_count=chunk_count,
            token_count=sum(chunk.token_count for chunk in slot.chunks),
            char_count=len(document.text),
            content_hash=slot.content_hash,
            ingested_at=datetime.now(UTC),
        )
        await self._retry(lambda: self._index.commit_record(record))
        if slot.generation > 1:
            await self._retry(lambda: self._index.delete_generations(slot.document_id, keep=slot.generation))
        return Receipt(
            slot.document_id, slot.source, Outcome.INGESTED, chunk_count, record.token_count, slot.generation
        )

    async def _withdraw(self, slot: _Slot, error: MambaSearchError) -> Receipt:
        """Take back what was written of a generation that will not be committed."""
        await self._retry(lambda: self._index.delete_generations(slot.document_id, keep=slot.generation - 1))
        return _rejection(slot, error)

    async def _retry(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        return await with_retries(call, self._retry_delays_s, lambda _: self._report(retries=self.progress.retries + 1))

    def _report(self, **counts: int) -> None:
        self.progress = replace(self.progress, **counts)
        if self._on_progress:
            self._on_progress(self.progress)


def _check(item: Item) -> _Slot:
    if isinstance(item, LoadError):
        slot = _Slot(document_id="", source=item.source)
        slot.receipt = _rejection(slot, item.error)
        return slot
    slot = _Slot(document_id=item.document_id, source=item.source, document=item)
    try:
        check_document(item)
        slot.text_bytes = len(item.text.encode())
    except InvalidInput as error:
        slot.receipt = _rejection(slot, error)
    return slot


def _rejection(slot: _Slot, error: MambaSearchError) -> Receipt:
    return Receipt(slot.document_id, slot.source, Outcome.REJECTED, error=error)


def _batches(slots: Iterable[_Slot], size_max: int, tokens_max: int, *, whole_documents: bool) -> Iterator[_Batch]:
    """Join the chunks of several documents, in order, up to a number of chunks and of tokens.

    A part that is over a limit on its own (a chunk, or a document where those stay whole) is a batch of its own.
    """
    batch: _Batch = []
    tokens = 0
    for slot in slots:
        if slot.receipt is not None:
            continue
        chunks = [(slot, chunk) for chunk in slot.chunks]
        for part in [chunks] if whole_documents else [[chunk] for chunk in chunks]:
            part_tokens = sum(chunk.token_count for _, chunk in part)
            if batch and (len(batch) + len(part) > size_max or tokens + part_tokens > tokens_max):
                yield batch
                batch, tokens = [], 0
            batch += part
            tokens += part_tokens
    if batch:
        yield batch


def _stored(slot: _Slot, chunk: Chunk) -> StoredChunk:
    return StoredChunk(
        document_id=slot.document_id,
        generation=slot.generation,
        chunk_index=chunk.chunk_index,
        char_start=chunk.char_start,
        char_end=chunk.char_end,
        token_count=chunk.token_count,
        text=chunk.text,
    )
