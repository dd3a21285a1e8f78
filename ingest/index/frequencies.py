"""In how many committed chunks of a tenant each term stands, and what BM25 makes of it. Knows no engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ingest.index.interface import SparseVector

Terms = NDArray[np.uint32]  # (k,), unique: those of one chunk


@dataclass(slots=True)
class _Corpus:
    chunk_count: int = 0
    frequencies: Counter[int] = field(default_factory=Counter)


class TermFrequencies:
    """Counts by tenant."""

    def __init__(self) -> None:
        self._corpora: dict[str, _Corpus] = {}

    def add(self, tenant: str, chunks: Iterable[Terms]) -> None:
        """Count chunks that a tenant has now."""
        corpus = self._corpora.setdefault(tenant, _Corpus())
        for terms in chunks:
            corpus.chunk_count += 1
            corpus.frequencies.update(terms.tolist())

    def remove(self, tenant: str, chunks: Iterable[Terms]) -> None:
        """Count chunks no longer; they have been counted."""
        corpus = self._corpora.setdefault(tenant, _Corpus())
        for terms in chunks:
            corpus.chunk_count -= 1
            for term in terms.tolist():
                if corpus.frequencies[term] > 1:
                    corpus.frequencies[term] -= 1
                else:
                    del corpus.frequencies[term]
        if not corpus.chunk_count:
            del self._corpora[tenant]

    def weigh(self, tenant: str, query: SparseVector) -> SparseVector:
        """Multiply a query's counts by how rare its terms are among a tenant's chunks.

        A term of none is weighed, too: a chunk that has it may be committed at this moment.
        """
        corpus = self._corpora.get(tenant, _Corpus())
        found = np.array([corpus.frequencies.get(term, 0) for term in query.indices.tolist()], np.float32)
        return replace(query, values=query.values * rarity(found, corpus.chunk_count))


def rarity(frequencies: NDArray[np.float32] | np.float32, chunk_count: int) -> NDArray[np.float32]:
    """Give the inverse document frequencies of terms that stand in so many of the chunks: Qdrant's ``Modifier.IDF``."""
    found = np.asarray(frequencies, np.float32)
    return np.log1p((chunk_count - found + np.float32(0.5)) / (found + np.float32(0.5))).astype(np.float32)
