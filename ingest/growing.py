"""Documents that grow: a new version that begins with the committed one keeps its chunks, and only the rest is written.

In one pass, the rest is read on from the stored state of the encoder, so that each new chunk's embedding knows all that
came before it, as if the whole had been read.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.interface import Encoder
from ingest.chunk_encoding import ChunkedDocument, ChunksInOnePass, ReadBefore
from ingest.documents import Document
from ingest.index.interface import SEGMENTS_MAX, DocumentRecord, VectorIndex
from ingest.slots import Slot
from ingest.states import ReadSoFar, StateStore
from ingest.structure.code_parser import can_parse


class StateLost(Exception):
    """The state to read on from is not there, or the encoder does not take it: the document has to be read whole."""


def begins_with(document: Document, record: DocumentRecord) -> bool:
    """Say whether a document's text is that of its committed version and more, and the rest can be written alone.

    That is known by its hash, so nobody has to say where the rest begins. Source code is always cut whole: what follows
    may change which definitions its chunks are in.
    """
    return (
        document.growing
        and len(document.text) > record.char_count
        and len(record.segments) < SEGMENTS_MAX
        and not can_parse(document.language)
        and replace(document, text=document.text[: record.char_count]).content_hash() == record.content_hash
    )


class GrowingEncoder:
    """Encodes documents that may grow in one pass, from the state of what came before and keeping that of what comes.

    The encoder's state is the one before the last chunk, so that chunk is read again, and its embedding left out.
    """

    def __init__(
        self, encoder: Encoder, chunks: ChunksInOnePass, index: VectorIndex, states: StateStore | None
    ) -> None:
        """Without ``states`` every version of more than a chunk is read whole."""
        self._encoder = encoder
        self._chunks = chunks
        self._index = index
        self._states = states

    async def encode(self, slot: Slot) -> NDArray[np.float32]:
        """Embed the new chunks of a document: ``(n, d)``. :class:`StateLost`, or what encoder and index raise."""
        before = await self._read_before(slot.growth) if slot.growth else None
        document = ChunkedDocument(slot.title, [chunk.text for chunk in slot.chunks])
        chunk_count = slot.first_chunk + len(slot.chunks)
        keep_state = self._states is not None and chunk_count > 1  # nothing comes before the first chunk
        try:
            read = await self._chunks.encode_growing(self._encoder, document, before, keep_state=keep_state)
        except InvalidInput as error:
            if error.field == "state":
                raise StateLost(str(error)) from error
            raise
        if self._states is not None and read.state is not None:
            so_far = ReadSoFar(
                slot.key, slot.generation, self._index.fingerprint, chunk_count, slot.chunks[-1].char_end
            )
            visible = slot.growth.generation if slot.growth else 0
            await asyncio.to_thread(self._states.save, so_far, read.state, keep=visible)
        return read.embeddings

    async def _read_before(self, record: DocumentRecord) -> ReadBefore:
        last = record.chunk_count - 1
        found = await self._index.get_chunks(record.key, record.generation_of(last), last, last)
        if not found:
            raise StateLost(f"Chunk {last} of {record.document_id} is not in the index.")
        if last == 0:
            return ReadBefore(found[0].text, None)
        if self._states is None:
            raise StateLost(f"No states are kept, so none of {record.document_id}.")
        so_far = ReadSoFar(
            record.key, record.generation, self._index.fingerprint, record.chunk_count, found[0].char_end
        )
        state = await asyncio.to_thread(self._states.load, so_far)
        if state is None:
            raise StateLost(f"The state of {record.document_id} is not there.")
        return ReadBefore(found[0].text, state)
