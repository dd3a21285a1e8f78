"""What has been written of versions that are not committed yet, remembered until they are. Knows no engine.

The index holds the same: what is forgotten here, after a restart or for want of room, is read from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ingest.index.fields import DocumentFields
from ingest.index.frequencies import Terms
from ingest.index.interface import DocumentKey, IndexedChunk

CHUNKS_MAX = 50_000  # some 30 MB


@dataclass(slots=True)
class Written:
    """Chunks of one generation of a document."""

    terms: dict[int, Terms] = field(default_factory=dict)  # by chunk_index
    fields: DocumentFields | None = None  # what all of them carry; None where one differs


class UnderWay:
    """Remembers documents; those that were begun first are forgotten first."""

    def __init__(self, chunks_max: int = CHUNKS_MAX) -> None:
        self._chunks_max = chunks_max
        self._documents: dict[DocumentKey, dict[int, Written]] = {}  # by generation
        self._chunks = 0

    def knows(self, key: DocumentKey, generation: int) -> bool:
        """Say whether any chunks of a generation are remembered."""
        return generation in self._documents.get(key, ())

    def note(self, indexed: IndexedChunk) -> None:
        """Remember a chunk that was written."""
        generations = self._documents.setdefault(indexed.chunk.key, {})
        written = generations.get(indexed.chunk.generation)
        if written is None:
            written = generations[indexed.chunk.generation] = Written(fields=indexed.fields)
        elif written.fields is not indexed.fields and written.fields != indexed.fields:
            written.fields = None
        self._chunks += indexed.chunk.chunk_index not in written.terms
        written.terms[indexed.chunk.chunk_index] = indexed.sparse.indices
        while self._chunks > self._chunks_max:
            self.forget(next(iter(self._documents)), lambda _: True)

    def take(self, key: DocumentKey, generation: int) -> Written | None:
        """Give what is remembered of a generation, and forget it."""
        generations = self._documents.get(key, {})
        written = generations.pop(generation, None)
        if written is not None:
            self._chunks -= len(written.terms)
        if not generations:
            self._documents.pop(key, None)
        return written

    def forget(self, key: DocumentKey, chosen: Callable[[int], bool]) -> None:
        """Forget a document's generations that are chosen."""
        for generation in list(self._documents.get(key, ())):
            if chosen(generation):
                self.take(key, generation)
