"""Several training sets as one, so that one batch holds texts of all of them. Token ids stay where they are mapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.training.examples import Groups, TrainingSet
from encoder.training.token_store import Numbers, RaggedArray, TokenStore


class JoinedValues:
    """Arrays end to end, read by their places in the whole."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = [part for part in parts if len(part)] or [parts[0]]
        self._begins = np.cumsum([0, *(len(part) for part in self._parts)])

    def __len__(self) -> int:
        return int(self._begins[-1])

    def __getitem__(self, places: slice | Numbers) -> NDArray[Any]:
        """Take values at places ``(n,)``, or of a stretch that lies in one part, as a row does."""
        if isinstance(places, slice):
            owner = int(self._owner(places.start))
            begin = int(self._begins[owner])
            row: NDArray[Any] = self._parts[owner][places.start - begin : places.stop - begin]
            return row
        owners = self._owner(places)
        found = np.empty(len(places), dtype=self._parts[0].dtype)
        for owner in np.unique(owners):
            chosen = owners == owner
            found[chosen] = self._parts[owner][places[chosen] - self._begins[owner]]
        return found

    def _owner(self, places: Any) -> Any:  # noqa: ANN401 - a number, or an array of them
        return np.minimum(np.searchsorted(self._begins, places, side="right") - 1, len(self._parts) - 1)


@dataclass(frozen=True, eq=False)
class JoinedSet(TrainingSet):
    """Sets of one tokenizer, one after the other: what numbers mean is counted on from set to set."""

    parts: tuple[TrainingSet, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        return join_sets, (self.parts,)


def join_sets(parts: Sequence[TrainingSet]) -> JoinedSet:
    """Join sets. They are documents where all of them are; what was mined stays with each."""
    passages = np.cumsum([0, *(len(part.passages) for part in parts)])
    positives, negatives = (
        RaggedArray(
            np.concatenate(
                [rows.values.astype(np.int64) + first for rows, first in zip(lists, passages, strict=False)]
            ),
            _join_starts(lists),
        )
        for lists in ([part.groups.positives for part in parts], [part.groups.negatives for part in parts])
    )
    chunk_ends = [part.chunk_ends for part in parts if part.chunk_ends is not None]
    return JoinedSet(
        name=", ".join(part.name for part in parts),
        folder=Path(),
        queries=_join_texts([part.queries for part in parts]),
        passages=_join_texts([part.passages for part in parts]),
        groups=Groups(positives, negatives),
        chunk_ends=(
            RaggedArray(np.concatenate([rows.values for rows in chunk_ends]), _join_starts(chunk_ends))
            if len(chunk_ends) == len(parts)
            else None
        ),
        passage_groups=_join_groups([part.passage_groups for part in parts]),
        sentence_ends=parts[0].sentence_ends,
        parts=tuple(parts),
    )


def _join_texts(stores: Sequence[TokenStore]) -> TokenStore:
    # Only rows and places are asked for, which joined values answer as an array does.
    values: Any = JoinedValues([store.values for store in stores])
    return TokenStore(values, _join_starts(stores))


def _join_starts(lists: Sequence[RaggedArray]) -> Numbers:
    return np.concatenate([[0], np.cumsum(np.concatenate([rows.lengths for rows in lists]))])


def _join_groups(groups: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    firsts = np.cumsum([0, *(int(part.max(initial=-1)) + 1 for part in groups)])
    joined = [np.where(part >= 0, part + first, -1) for part, first in zip(groups, firsts, strict=False)]
    return np.concatenate(joined).astype(np.int32)
