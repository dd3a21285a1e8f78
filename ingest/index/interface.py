"""What an index is: chunks with dense and sparse vectors, and one record per document. Knows no engine.

A document's chunks belong to a generation, a number that grows with each version. A writer upserts all chunks and
commits by writing the document's record; the older chunks are collected later. Whoever clears an attempt away fences it
first, so that its writer cannot commit it any more. A document that has grown keeps what earlier generations wrote, as
segments that its record lists. Readers drop hits whose generation the record does not list, so they see the old version
or the new, never a mix. Each document belongs to a tenant; tenants may use the same ids and never see each other's
documents. What a writer has been answered survives the end of every process, and a loss of power once
:meth:`VectorIndex.flush` has returned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ingest.documents import DEFAULT_TENANT, MetadataValue

if TYPE_CHECKING:
    from ingest.filters import Filter
    from ingest.index.fields import DocumentFields

BATCH_CHUNKS_MAX = 128
LIMIT_MAX = 1000
READ_MAX = 1024
FIRST_GENERATION = 1
# Of a document; one that has grown as often is written whole again. With 64, all of these together cost a document that
# grows by a percent each time less than two percent more.
SEGMENTS_MAX = 64


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term weights; the indices (uint32) are unique."""

    indices: NDArray[np.uint32]  # (k,)
    values: NDArray[np.float32]  # (k,)


class DocumentKey(NamedTuple):
    """Names a document among all tenants'."""

    tenant: str
    document_id: str


class ChunkKey(NamedTuple):
    """Names a chunk among all that an index holds."""

    tenant: str
    document_id: str
    generation: int
    chunk_index: int


class ReadConsistency(Enum):
    """How many copies of a Qdrant server's data a read asks; an index in one process has one, where all are the same.

    Where copies differ, what most of those asked agree upon is the answer.
    """

    DEFAULT = "default"  # one copy, the server's choice
    MAJORITY = "majority"  # all copies; what more than half of them hold
    QUORUM = "quorum"  # more than half of the copies, at random; what all of them hold
    ALL = "all"  # all copies; what all of them hold


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A slice of a document's text, without its vectors."""

    tenant: str
    document_id: str
    generation: int
    chunk_index: int
    char_start: int  # code points, from 0
    char_end: int  # exclusive
    line_start: int  # from 1
    line_end: int  # inclusive
    headings: tuple[str, ...]  # those above the chunk, or the classes and functions that it is in; outermost first
    token_count: int
    text: str

    @property
    def key(self) -> DocumentKey:
        """Which document it is a slice of."""
        return DocumentKey(self.tenant, self.document_id)

    @property
    def chunk_key(self) -> ChunkKey:
        """Which chunk it is among all."""
        return ChunkKey(self.tenant, self.document_id, self.generation, self.chunk_index)


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk with the vectors it is found by.

    ``fields`` are those of the record that it will be committed with; without, the commit has to write them.
    """

    chunk: StoredChunk
    embedding: NDArray[np.float32]  # (d,)
    sparse: SparseVector
    fields: DocumentFields | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a document's chunks that one generation wrote; it never changes."""

    generation: int
    first_chunk: int  # from 0
    chunk_count: int  # from 1


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """The committed version of a document. Writing it is what makes the version visible."""

    tenant: str
    document_id: str
    title: str
    source: str
    metadata: Mapping[str, MetadataValue]
    generation: int  # from 1
    chunk_count: int
    token_count: int
    char_count: int
    content_hash: str
    metadata_hash: str
    ingested_at: datetime  # UTC; when it, or its metadata alone, were written last
    earlier: tuple[Segment, ...] = ()  # of a document that has grown: what is kept of the generations before this one

    @property
    def key(self) -> DocumentKey:
        """Which document it is the record of."""
        return DocumentKey(self.tenant, self.document_id)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All of its chunks, in order, by the generation that wrote them; the last is this version's own."""
        first = sum(segment.chunk_count for segment in self.earlier)
        return (*self.earlier, Segment(self.generation, first, self.chunk_count - first))

    @property
    def generations(self) -> tuple[int, ...]:
        """Name the generations that its chunks are of, ascending."""
        return (*(segment.generation for segment in self.earlier), self.generation)

    def generation_of(self, chunk_index: int) -> int:
        """Say which generation wrote a chunk of this version."""
        return next(part for part in reversed(self.segments) if part.first_chunk <= chunk_index).generation


# By document_id, some of its generations; at most READ_MAX documents.
Generations = Mapping[str, Collection[int]]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which chunks a search looks at: a tenant's, of all generations, or only those of the documents named.

    With ``filter`` only chunks of documents that it holds for. A chunk is known to be of such a document a moment
    before or after its record says so: :attr:`IndexAnswer.committed` is by the record.
    """

    tenant: str = DEFAULT_TENANT
    generations: Generations | None = None  # the only ones to look at; {}: none
    without: Generations = field(default_factory=dict)  # not to be looked at
    filter: Filter | None = None
    consistency: ReadConsistency = ReadConsistency.DEFAULT


@dataclass(frozen=True, slots=True)
class IndexHit:
    """Which chunk was found, with its score: cosine for dense, BM25 for sparse. Higher is better.

    Most of what is found is never shown: texts and records are read of what is (:meth:`VectorIndex.read_hits`).
    """

    chunk: ChunkKey
    score: float


# Chunks that exist, and the committed records of their documents.
HitsRead = tuple[Mapping["ChunkKey", "StoredChunk"], Mapping["DocumentKey", "DocumentRecord"]]


@dataclass(frozen=True, slots=True)
class IndexAnswer:
    """What both halves of a search found, best first, and what of it is committed.

    ``committed`` has, by document_id, the generations that the records list of the documents found, and of those that
    the scope's ``without`` names. A document is left out that has no record, or none that the scope's filter holds for.
    Records are looked at when the hits are found, not before.
    """

    dense: Sequence[IndexHit] = ()
    sparse: Sequence[IndexHit] = ()
    committed: Generations = field(default_factory=dict)
    dense_s: float = 0.0  # seconds that the halves took, the way to the index not included
    sparse_s: float = 0.0
    read: HitsRead = ({}, {})  # of the first hits, where that was asked for


@dataclass(frozen=True, slots=True)
class IndexStats:
    """Sizes of an index."""

    document_count: int
    chunk_count: int


class VectorIndex(Protocol):
    """One index, bound to the fingerprint it was opened with.

    Lists are bounded: at most ``BATCH_CHUNKS_MAX`` chunks a call, ``LIMIT_MAX`` hits, ``READ_MAX`` chunks, records or
    documents of a scope; more is :class:`encoder.errors.InvalidInput`, as is an embedding of another length than the
    index's, or a generation below 1 where one is committed or deleted (below 0 where it is fenced).

    Every method may raise :class:`encoder.errors.IndexUnavailable`; writers may raise
    :class:`encoder.errors.StorageFull`; a server may also be late (:class:`encoder.errors.TimedOut`) or refuse more
    (:class:`encoder.errors.Overloaded`): the same call may be made again. Opening (each implementation's own function)
    raises :class:`encoder.errors.FingerprintMismatch` where the stored fingerprint differs from the one given.
    """

    @property
    def fingerprint(self) -> str:
        """Which model and chunker made the index, as :func:`encoder.fingerprint.index_fingerprint` joins them."""

    @property
    def dimension(self) -> int:
        """Length of its embeddings."""

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks. The same chunk again (by tenant, document, generation, index) replaces itself."""

    async def count_chunks(self, key: DocumentKey, *generations: int) -> int:
        """Count the chunks that some generations of a document have in the index, all together."""

    async def commit_record(self, record: DocumentRecord, *, in_place_of: int | None = None) -> bool:
        """Make a record's generation the visible one, at once, unless it is fenced.

        With ``in_place_of`` only where that generation is the visible one: what the record was made from has not
        changed since. It may be the record's own, whose metadata change then.

        Say whether it is the visible one now. The generation that is visible may be committed again, fenced or not:
        its record is replaced. On return the chunks carry what filters ask of the record.
        """

    async def fence(self, key: DocumentKey, generation: int) -> DocumentRecord | None:
        """Refuse every commit of this generation and of those before it from now on, except of the one committed.

        Give the committed record: None where there is none, or the document was deleted. What is fenced already is not
        lowered; 0 fences nothing.
        """

    async def get_fences(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        """Give the highest generation that each known document had or was fenced at; unknown ones are left out."""

    async def get_records(
        self, keys: Sequence[DocumentKey], *, consistency: ReadConsistency = ReadConsistency.DEFAULT
    ) -> dict[DocumentKey, DocumentRecord]:
        """Read the records of the documents that are committed and not deleted."""

    async def list_records(self, tenant: str | None, after: str, limit: int) -> tuple[list[DocumentRecord], str]:
        """Read a page of a tenant's records (None: of all tenants'), and the token of the next page ("" at the end).

        ``after`` is "" for the first page, then the token. The order is the index's own, and stable: a record that is
        there all the while is on exactly one page.
        """

    async def get_chunks(self, key: DocumentKey, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks ``first`` to ``last`` (inclusive, from 0) that exist, in order."""

    async def read_chunks(
        self, chunks: Sequence[ChunkKey], *, consistency: ReadConsistency = ReadConsistency.DEFAULT
    ) -> dict[ChunkKey, StoredChunk]:
        """Read the chunks of a search's hits; those that do not exist any more are left out."""

    async def read_hits(
        self, chunks: Sequence[ChunkKey], *, consistency: ReadConsistency = ReadConsistency.DEFAULT
    ) -> HitsRead:
        """Read chunks that exist as :meth:`read_chunks` does, and the committed records of their documents."""

    async def get_embeddings(self, chunks: Sequence[ChunkKey]) -> dict[ChunkKey, NDArray[np.float32]]:
        """Read the embeddings ``(d,)`` of chunks, each of length 1; those that do not exist are left out."""

    async def delete_record(self, key: DocumentKey, generation: int) -> bool:
        """Make a document invisible from this generation on (a deletion is a generation, too).

        Leaves a tombstone, which refuses commits up to it; the chunks stay. Say whether a committed record was there;
        False, and nothing is deleted, where a newer one is.
        """

    async def drop_tombstone(self, key: DocumentKey, generation: int) -> None:
        """Forget a tombstone, where the document is still fenced at just this generation; it is unknown then."""

    async def delete_chunks(
        self, key: DocumentKey, *, generation: int | None = None, below: int | None = None, keep: Collection[int] = ()
    ) -> int:
        """Delete the chunks of one generation, or of all before one (exactly one is given); say how many.

        Of those before one, ``keep`` names the generations that stay.
        """

    async def search(
        self,
        embedding: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        limit: int,
        scope: Scope,
        *,
        read_first: int = 0,
    ) -> IndexAnswer:
        """Find the nearest chunks by cosine similarity and the best by BM25, ``limit`` of each; None asks for no such.

        ``embedding`` is ``(d,)``. Document frequencies are those of the tenant's committed chunks. So many of the first
        hits (of the nearest, where these are asked for) as ``read_first`` says are read along, as :meth:`read_hits`
        does, where the index can do so at once: what is missing is to be read.
        """

    async def stats(self) -> IndexStats:
        """Count what is in the index; tombstones are no documents."""

    async def flush(self) -> None:
        """Have all that was written survive a loss of power."""

    async def close(self) -> None:
        """Flush and let go."""
