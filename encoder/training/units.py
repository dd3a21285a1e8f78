"""What mining scores: passages, or the chunks of documents; a document's score is its best chunk's. Knows no scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.training.examples import TrainingSet
from encoder.training.token_store import Numbers, TokenStore

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Units:
    """Slices of a set's passages; those of passage ``i`` are ``firsts[i]`` to ``firsts[i + 1]``."""

    store: TokenStore
    begins: Numbers  # (units,) flat positions in the store
    ends: Numbers  # (units,)
    firsts: Numbers  # (passages + 1,)

    @classmethod
    def of(cls, training_set: TrainingSet) -> Units:
        """Take the chunks of documents, or each passage that has a token."""
        store, chunk_ends = training_set.passages, training_set.chunk_ends
        starts = np.asarray(store.starts[:-1])
        if chunk_ends is None:
            there = store.lengths > 0
            firsts = np.concatenate([[0], np.cumsum(there)])
            return cls(store, starts[there], np.asarray(store.starts[1:])[there], firsts)
        counts = chunk_ends.lengths
        ends = np.repeat(starts, counts) + chunk_ends.values
        begins = np.empty_like(ends)
        begins[1:] = ends[:-1]
        first_chunks = np.asarray(chunk_ends.starts[:-1])[counts > 0]
        begins[first_chunks] = starts[counts > 0]
        return cls(store, begins, ends, np.asarray(chunk_ends.starts))

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def counts(self) -> Numbers:
        """Units of each passage, ``(passages,)``."""
        return np.diff(self.firsts)

    def tokens(self, number: int) -> NDArray[np.integer]:
        """Token ids of one unit."""
        ids: NDArray[np.integer] = self.store.values[self.begins[number] : self.ends[number]]
        return ids

    def best(self, scores: Scores) -> Scores:
        """Turn scores of all units ``(units,)`` into the passages', ``(passages,)``; -inf where one has no unit."""
        found = np.full(len(self.firsts) - 1, -np.inf, dtype=np.float32)
        there = np.flatnonzero(self.counts)
        if len(there):
            found[there] = np.maximum.reduceat(scores, self.firsts[:-1][there])
        return found
