"""What an index is: chunks with dense and sparse vectors, and one record per document. Knows no engine.

A document's chunks belong to a generation, a number that grows with each version. Writers upsert all chunks of a new
generation, then commit it by writing the document's record, then delete the older generations. Readers drop hits
whose generation is not the committed one, so they see the old version or the new, never a mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BATCH_CHUNKS_MAX = 128
LIMIT_MAX = 1000
READ_MAX = 1024


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term weights; the indices (uint32) are unique."""

    indices: NDArray[np.uint32]  # (k,)
    values: NDArray[np.float32]  # (k,)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A slice of a document's text, without its vectors."""

    document_id: str
    generation: int
    chunk_index: int
    char_start: int  # code points, from 0
    char_end: int  # exclusive
    token_count: int
    text: str


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk with the vectors it is found by."""

    chunk: StoredChunk
    embedding: NDArray[np.float32]  # (d,)
    sparse: SparseVector


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """The committed version of a document. Writing it is what makes the version visible."""

    document_id: str
    title: str
    source: str
    generation: int
    chunk_count: int
    token_count: int
    char_count: int
    content_hash: str
    ingested_at: datetime  # UTC


@dataclass(frozen=True, slots=True)
class IndexHit:
    """A chunk with its score: cosine for dense, BM25 for sparse. Higher is better."""

    chunk: StoredChunk
    score: float


@dataclass(frozen=True, slots=True)
class IndexStats:
    """Sizes of an index."""

    document_count: int
    chunk_count: int


class VectorIndex(Protocol):
    """One index, bound to the fingerprint it was opened with.

    Lists are bounded: at most ``BATCH_CHUNKS_MAX`` chunks a call, ``LIMIT_MAX`` hits, ``READ_MAX`` chunks or records;
    more is :class:`encoder.errors.InvalidInput`, as is an embedding of another length than the index's.

    Every method may raise :class:`encoder.errors.IndexUnavailable`; writers may raise
    :class:`encoder.errors.StorageFull`. Opening (each implementation's own function) raises
    :class:`encoder.errors.FingerprintMismatch` where the stored fingerprint differs from the one given.
    """

    @property
    def fingerprint(self) -> str:
        """Which model and chunker made the index, as :func:`encoder.fingerprint.index_fingerprint` joins them."""

    @property
    def dimension(self) -> int:
        """Length of its embeddings."""

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks durably. Ids come from (document_id, generation, chunk_index): a retry doubles nothing."""

    async def count_chunks(self, document_id: str, generation: int) -> int:
        """Count the chunks that one generation of a document has in the index."""

    async def commit_record(self, record: DocumentRecord) -> None:
        """Make a document's generation the visible one, durably and at once."""

    async def get_records(self, document_ids: Sequence[str]) -> dict[str, DocumentRecord]:
        """Read the records of the documents that exist."""

    async def get_chunks(self, document_id: str, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks ``first`` to ``last`` (inclusive, from 0) that exist, in order."""

    async def delete_generations(self, document_id: str, *, keep: int) -> int:
        """Delete the chunks of all generations of a document but ``keep`` (0 keeps none); say how many."""

    async def delete_document(self, document_id: str) -> int:
        """Delete a document's record first, then all its chunks; say how many chunks. 0 where there is none."""

    async def search_dense(self, embedding: NDArray[np.float32], limit: int) -> list[IndexHit]:
        """Find the nearest chunks by cosine similarity, best first. ``embedding`` is ``(d,)``."""

    async def search_sparse(self, sparse: SparseVector, limit: int) -> list[IndexHit]:
        """Find the best chunks by BM25 (inverse document frequencies are the index's), best first."""

    async def stats(self) -> IndexStats:
        """Count what is in the index."""

    async def close(self) -> None:
        """Flush and let go."""
