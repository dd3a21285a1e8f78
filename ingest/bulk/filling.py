"""Cut documents into an index: encoded in batches, written, counted, committed. Knows neither files nor Ray.

Whoever fills an index is the only one to write these documents, so that writing again after a crash does no harm: ids
follow from documents and generations, and what an earlier attempt left of one is counted, and cleared away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from encoder.errors import FingerprintMismatch, IndexUnavailable, InvalidInput, MambaSearchError
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder
from ingest.bulk.documents import NewDocument
from ingest.chunk_encoding import ChunkedDocument, ChunkEncoder
from ingest.chunking import Chunker
from ingest.cutting.cutter import sparse_passages
from ingest.index.fields import fields_of
from ingest.index.interface import BATCH_CHUNKS_MAX, IndexedChunk, VectorIndex
from ingest.retrying import RETRY_DELAYS_S, with_retries
from ingest.slots import Batch, Batcher, Slot, split_by_document

BATCH_TOKENS_MAX = 65_536
# Requests to the index that one bundle has under way.
STREAMS = 4

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class DocumentEncoder:
    """Embeds the chunks of cut documents."""

    encoder: Encoder
    chunk_encoder: ChunkEncoder
    batch_tokens_max: int = BATCH_TOKENS_MAX

    async def check(self, fingerprint: str, dimension: int, chunker: Chunker) -> None:
        """Raise :class:`FingerprintMismatch` where what it makes is not what an index of this fingerprint holds.

        :class:`encoder.errors.CheckpointError` where the model cannot read what the chunker cuts.
        """
        info = await _tried(self.encoder.info)
        found = index_fingerprint(info.fingerprint, self.chunk_encoder.fingerprint(chunker.fingerprint))
        if (found, info.dimension) != (fingerprint, dimension):
            raise FingerprintMismatch(
                f"The index is for {fingerprint} (dimension {dimension}), but {found} (dimension {info.dimension}) "
                "would write to it; the same model has to be at hand everywhere."
            )
        self.chunk_encoder.check(info, chunker)

    async def encode(self, documents: Sequence[NewDocument]) -> None:
        """Give each document its embeddings; one that the encoder refuses gets its error.

        An encoder that is away, late or full is tried again for half a minute; then its error is raised.
        """
        chunks_max = (await _tried(self.encoder.info)).batch_size_max
        rows: dict[int, list[np.ndarray]] = {}
        whole = self.chunk_encoder.reads_whole_documents
        batcher = Batcher[NewDocument](chunks_max, self.batch_tokens_max, whole_documents=whole)
        for batch in batcher.add(documents):
            await self._encode(batch, rows)
        await self._encode(batcher.rest(), rows)
        for document in documents:
            if document.error is None:
                document.embeddings = np.concatenate(rows[id(document)])

    async def _encode(self, batch: Batch[NewDocument], rows: dict[int, list[np.ndarray]]) -> None:
        stretches = split_by_document([(document, chunk) for document, chunk in batch if document.error is None])
        if not stretches:
            return
        given = [ChunkedDocument(part[0][0].title, [chunk.text for _, chunk in part]) for part in stretches]
        try:
            embeddings = await _tried(lambda: self.chunk_encoder.encode(self.encoder, given))
        except InvalidInput as error:
            if len(stretches) > 1:
                for stretch in stretches:
                    await self._encode(stretch, rows)
            else:
                document = stretches[0][0][0]
                name = document.record.document_id
                document.error = InvalidInput("text", f"{name} cannot be encoded: {error}")
            return
        at = 0
        for stretch in stretches:
            rows.setdefault(id(stretch[0][0]), []).append(embeddings[at : at + len(stretch)])
            at += len(stretch)


async def write_documents(index: VectorIndex, documents: Sequence[NewDocument], streams: int = STREAMS) -> int:
    """Write encoded documents and make them visible; say how many of them are superseded by newer generations.

    An index that is away, late or full is tried again for half a minute, then its error is raised; so is
    :class:`IndexUnavailable` where chunks that were written are not there.
    """
    places = asyncio.Semaphore(streams)

    async def limited(call: Callable[[], Awaitable[_Result]]) -> _Result:
        async with places:
            return await _tried(call)

    indexed = await asyncio.to_thread(lambda: [_indexed(document) for document in documents])
    chunks = [chunk for found in indexed for chunk in found]
    await _all(limited, [_upserting(index, chunks[at : at + BATCH_CHUNKS_MAX]) for at in _starts(chunks)])
    committed = await _all(
        limited, [_committing(index, document, found) for document, found in zip(documents, indexed, strict=True)]
    )
    return committed.count(False)


def _upserting(index: VectorIndex, chunks: Sequence[IndexedChunk]) -> Callable[[], Awaitable[None]]:
    return lambda: index.upsert_chunks(chunks)


def _committing(
    index: VectorIndex, document: NewDocument, chunks: Sequence[IndexedChunk]
) -> Callable[[], Awaitable[bool]]:
    """Count, and commit; False where something newer came first."""
    record = document.record

    async def commit() -> bool:
        found = await index.count_chunks(record.key, record.generation)
        if found != len(chunks):
            # Of an attempt that was broken off, of a text that was another one, more may be left.
            await index.delete_chunks(record.key, generation=record.generation)
            for at in _starts(chunks):
                await index.upsert_chunks(chunks[at : at + BATCH_CHUNKS_MAX])
            found = await index.count_chunks(record.key, record.generation)
        if found != len(chunks):
            raise IndexUnavailable(f"{record.document_id}: {found} of {len(chunks)} chunks of it are in the index.")
        if await index.commit_record(record):
            return True
        await index.delete_chunks(record.key, generation=record.generation)
        return False

    return commit


async def _all(
    limited: Callable[[Callable[[], Awaitable[_Result]]], Awaitable[_Result]],
    calls: Sequence[Callable[[], Awaitable[_Result]]],
) -> list[_Result]:
    """Make all calls; where one fails the others end first, then its error is raised."""
    found = await asyncio.gather(*(limited(call) for call in calls), return_exceptions=True)
    results: list[_Result] = []
    for one in found:
        if isinstance(one, BaseException):
            raise one
        results.append(one)
    return results


async def _tried(call: Callable[[], Awaitable[_Result]]) -> _Result:
    return await with_retries(call, RETRY_DELAYS_S, _ignore)


def _ignore(error: MambaSearchError) -> None:
    """Go on: a failure that lasts is raised in the end."""


def _starts(chunks: Sequence[IndexedChunk]) -> range:
    return range(0, len(chunks), BATCH_CHUNKS_MAX)


def _indexed(document: NewDocument) -> list[IndexedChunk]:
    record, embeddings = document.record, document.embeddings
    assert embeddings is not None
    sparse = sparse_passages(document.title, document.chunks)
    slot = Slot(
        record.key,
        record.source,
        generation=record.generation,
        chunks=document.chunks,
        sparse=sparse,
        fields=fields_of(record),
    )
    return [slot.indexed(chunk, embedding) for chunk, embedding in zip(document.chunks, embeddings, strict=True)]
