"""Chunks into the index: encoded in batches, written, and where a batch is refused, the document at fault found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from encoder.errors import IndexUnavailable, InvalidInput
from encoder.interface import Encoder
from encoder.passage_text import join_passage
from ingest.chunk_encoding import ChunkedDocument, ChunkEncoder
from ingest.index.interface import BATCH_CHUNKS_MAX, IndexedChunk, VectorIndex
from ingest.journal import Attempt, Journal
from ingest.preparing import Retry
from ingest.slots import Batch, named, split_by_document
from ingest.sparse import sparse_passage


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
    ) -> None:
        """``on_encoded`` and ``on_written`` are told how many chunks and tokens have been encoded, and written."""
        self._encoder = encoder
        self._chunk_encoder = chunk_encoder
        self._index = index
        self._journal = journal
        self._retry = retry
        self._on_encoded = on_encoded
        self._on_written = on_written

    async def write(self, batch: Batch) -> None:
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
        for slot, _ in batch:
            slot.outstanding -= 1
        self._on_written(len(batch), sum(chunk.token_count for _, chunk in batch))

    async def _write(self, batch: Batch) -> None:
        passages = [join_passage(slot.title, chunk.text) for slot, chunk in batch]
        documents = [
            ChunkedDocument(part[0][0].title, [chunk.text for _, chunk in part]) for part in split_by_document(batch)
        ]
        embeddings = await self._retry(lambda: self._chunk_encoder.encode(self._encoder, documents))
        self._on_encoded(len(batch), sum(chunk.token_count for _, chunk in batch))
        sparse = await asyncio.to_thread(lambda: [sparse_passage(passage) for passage in passages])
        vectors = zip(embeddings, sparse, strict=True)
        points = [IndexedChunk(slot.stored(chunk), *pair) for (slot, chunk), pair in zip(batch, vectors, strict=True)]
        for start in range(0, len(points), BATCH_CHUNKS_MAX):
            await self._retry(partial(self._index.upsert_chunks, points[start : start + BATCH_CHUNKS_MAX]))
