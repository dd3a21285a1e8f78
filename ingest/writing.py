"""Chunks into the index: encoded in batches, written, and where a batch is refused, the document at fault found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable, InvalidInput
from encoder.interface import Encoder
from ingest.chunk_encoding import ChunkedDocument, ChunkEncoder
from ingest.growing import GrowingEncoder, StateLost
from ingest.index.interface import BATCH_CHUNKS_MAX, VectorIndex
from ingest.journal import Attempt, Journal
from ingest.preparing import Retry
from ingest.slots import Batch, Slot, named, split_by_document
from ingest.staging import OnStage, staged


class Writer:
    """Encodes and writes batches; safe for several at once."""

    def __init__(
        self,
        encoder: Encoder,
        chunk_encoder: ChunkEncoder,
        index: VectorIndex,
        journal: Journal,
        retry: Retry,
        on_encoded: Callable[[int, int], None],
        on_written: Callable[[int, int], None],
        on_stage: OnStage,
        *,
        growing: GrowingEncoder | None,
        cut_whole: Callable[[Slot], Awaitable[None]],
    ) -> None:
        """``on_encoded`` and ``on_written`` are told how many chunks and tokens have been encoded, and written.

        ``on_stage`` is told how long each batch took. ``growing`` encodes documents that may grow, where those are read
        whole; each is a batch then. One that cannot be added to is cut anew by ``cut_whole``.
        """
        self._encoder = encoder
        self._chunk_encoder = chunk_encoder
        self._index = index
        self._journal = journal
        self._retry = retry
        self._on_encoded = on_encoded
        self._on_written = on_written
        self._on_stage = on_stage
        self._growing = growing
        self._cut_whole = cut_whole

    async def write(self, batch: Batch[Slot]) -> None:
        """Encode and write a batch; where it is refused, each document alone, to find the one at fault."""
        for slot, _ in batch:
            if slot.error is None and not self._journal.holds(Attempt(slot.key, slot.generation)):
                # Whoever took over has cleared away: what came later would stay.
                name = slot.key.document_id
                slot.error = IndexUnavailable(f"{name} was taken over while it was being written; ingest it again.")
            if slot.error is not None:
                slot.outstanding -= 1
        batch = [(slot, chunk) for slot, chunk in batch if slot.error is None]
        if not batch:
            return
        try:
            await self._write(batch)
        except InvalidInput as error:
            alone = split_by_document(batch)
            if len(alone) == 1:
                slot = batch[0][0]
                slot.error = named(slot, error)
                slot.outstanding -= len(batch)
                return
            for part in alone:
                await self.write(part)
            return
        except StateLost:
            slot = batch[0][0]
            await self._cut_whole(slot)
            await self.write([(slot, chunk) for chunk in slot.chunks])
            return
        for slot, _ in batch:
            slot.outstanding -= 1
        self._on_written(len(batch), sum(chunk.token_count for _, chunk in batch))

    async def _write(self, batch: Batch[Slot]) -> None:
        with staged("encode", self._on_stage, count=len(batch)):
            embeddings = await self._retry(lambda: self._encode(batch))
        self._on_encoded(len(batch), sum(chunk.token_count for _, chunk in batch))
        points = [slot.indexed(chunk, row) for (slot, chunk), row in zip(batch, embeddings, strict=True)]
        with staged("write", self._on_stage, count=len(batch)):
            for start in range(0, len(points), BATCH_CHUNKS_MAX):
                await self._retry(partial(self._index.upsert_chunks, points[start : start + BATCH_CHUNKS_MAX]))

    async def _encode(self, batch: Batch[Slot]) -> NDArray[np.float32]:
        slot = batch[0][0]
        if self._growing and slot.growing:
            return await self._growing.encode(slot)
        documents = [
            ChunkedDocument(part[0][0].title, [chunk.text for _, chunk in part]) for part in split_by_document(batch)
        ]
        return await self._chunk_encoder.encode(self._encoder, documents)
