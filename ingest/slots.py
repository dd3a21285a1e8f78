"""Documents on their way into the index, and the batches that their chunks form. Knows no index and no encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput, MambaSearchError
from ingest.chunking import Chunk
from ingest.documents import Document
from ingest.index.fields import DocumentFields, make_fields
from ingest.index.interface import DocumentKey, DocumentRecord, IndexedChunk, SparseVector, StoredChunk
from ingest.receipts import Outcome, Receipt, Stage


@dataclass(slots=True)
class Slot:
    """One item of a stream; the receipt is there when nothing is left to do."""

    key: DocumentKey
    source: str
    text_bytes: int = 0
    document: Document | None = None
    content_hash: str = ""
    metadata_hash: str = ""
    record: DocumentRecord | None = None  # the committed one, where nothing but its metadata is to change
    generation: int = 0  # given out by the journal; 0 where no chunks are to be written
    growth: DocumentRecord | None = None  # the committed one, where its chunks stay and these come after them
    title: str = ""
    chunks: Sequence[Chunk] = ()
    sparse: Sequence[SparseVector] = ()  # of each chunk
    ingested_at: datetime | None = None  # given with the generation
    fields: DocumentFields | None = None  # what its chunks carry, as its record will say
    outstanding: int = 0  # chunks neither written nor given up
    error: MambaSearchError | None = None  # found while encoding
    receipt: Receipt | None = None

    def begin(self, generation: int) -> None:
        """Take a generation, and say what its chunks are to carry."""
        document = self.document
        assert document is not None
        self.generation, self.ingested_at = generation, datetime.now(UTC)
        self.fields = make_fields(document.title, document.source, document.metadata, self.ingested_at)

    @property
    def growing(self) -> bool:
        """Say whether the document may grow."""
        return self.document is not None and self.document.growing

    @property
    def first_chunk(self) -> int:
        """Place of the first of its chunks in the document."""
        return self.growth.chunk_count if self.growth else 0

    @property
    def in_place_of(self) -> int | None:
        """Name the generation that has to be the visible one until this one is (0: none); None where any may be."""
        if self.growth:
            return self.growth.generation
        return self.document.in_place_of if self.document else None

    def settle(self, outcome: Outcome, record: DocumentRecord) -> None:
        """Give the receipt that says which version is visible."""
        counts = (record.chunk_count, record.token_count, record.generation)
        self.receipt = Receipt(self.key.document_id, self.source, outcome, *counts)

    def give_way(self, newest: DocumentRecord | None, generation: int) -> None:
        """Give the receipt that says what stands in its place: a version, or a deletion of a generation."""
        if newest:
            self.settle(Outcome.SUPERSEDED, newest)
        else:
            self.receipt = Receipt(self.key.document_id, self.source, Outcome.SUPERSEDED, generation=generation)

    def reject(self, error: MambaSearchError) -> None:
        """Give the receipt that says why it is not ingested."""
        self.receipt = Receipt(
            self.key.document_id, self.source, Outcome.REJECTED, error=error, stage=self._stage(error)
        )

    def _stage(self, error: MambaSearchError) -> Stage:
        """Tell by how far it came what refused it."""
        if not self.content_hash:
            return Stage.READ
        if not self.generation:
            return Stage.CHUNK
        if error is not self.error:
            return Stage.COMMIT
        return Stage.ENCODE if isinstance(error, InvalidInput) else Stage.WRITE

    def indexed(self, chunk: Chunk, embedding: NDArray[np.float32]) -> IndexedChunk:
        """Say what the index gets of one of its chunks; ``embedding`` is ``(d,)``."""
        return IndexedChunk(self.stored(chunk), embedding, self.sparse[chunk.chunk_index], self.fields)

    def stored(self, chunk: Chunk) -> StoredChunk:
        """Say what the index keeps of one of its chunks."""
        return StoredChunk(
            tenant=self.key.tenant,
            document_id=self.key.document_id,
            generation=self.generation,
            chunk_index=self.first_chunk + chunk.chunk_index,
            char_start=chunk.char_start,
            char_end=chunk.char_end,
            line_start=chunk.line_start,
            line_end=chunk.line_end,
            headings=chunk.headings,
            token_count=chunk.token_count,
            text=chunk.text,
        )


class Cut(Protocol):
    """A document that is cut."""

    @property
    def chunks(self) -> Sequence[Chunk]:
        """Its chunks, in order."""

    @property
    def growing(self) -> bool:
        """Say whether it may grow."""


_Document = TypeVar("_Document", bound=Cut)
Batch = list[tuple[_Document, Chunk]]


class Batcher(Generic[_Document]):
    """Joins the chunks of several documents, in order, up to a number of chunks and of tokens.

    A part that is over a limit on its own (a chunk, or a document where those stay whole) is a batch of its own. So is
    a document that stays whole and may grow: its states are large, and one at a time is in memory.
    """

    def __init__(self, size_max: int, tokens_max: int, *, whole_documents: bool) -> None:
        self._size_max = size_max
        self._tokens_max = tokens_max
        self._whole_documents = whole_documents
        self._batch: Batch[_Document] = []
        self._tokens = 0

    def add(self, documents: Iterable[_Document]) -> Iterator[Batch[_Document]]:
        """Take documents, and give the batches that are full."""
        for document in documents:
            chunks = [(document, chunk) for chunk in document.chunks]
            for part in [chunks] if self._whole_documents and chunks else [[chunk] for chunk in chunks]:
                tokens = sum(chunk.token_count for _, chunk in part)
                full = len(self._batch) + len(part) > self._size_max or self._tokens + tokens > self._tokens_max
                apart = self._whole_documents and document.growing
                if (full or apart) and self._batch:
                    yield self.rest()
                self._batch += part
                self._tokens += tokens
                if apart:
                    yield self.rest()

    def rest(self) -> Batch[_Document]:
        """Give what has not filled a batch; empty where there is nothing."""
        batch, self._batch, self._tokens = self._batch, [], 0
        return batch


def split_by_document(batch: Batch[_Document]) -> list[Batch[_Document]]:
    """Divide a batch into one a document, in order."""
    found: dict[int, Batch[_Document]] = {}
    for document, chunk in batch:
        found.setdefault(id(document), []).append((document, chunk))
    return list(found.values())


def named(slot: Slot, error: InvalidInput) -> InvalidInput:
    """Say of which document an encoder's refusal is."""
    return InvalidInput("text", f"{slot.key.document_id} cannot be encoded: {error}")
