"""Two rankings into one, by reciprocal rank. Knows keys and orders, no search."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

# Cormack, Clarke, Büttcher 2009: large enough that the first ranks of one list do not decide alone.
RANK_CONSTANT = 60

_Key = TypeVar("_Key", bound=Hashable)


def fuse(rankings: Sequence[tuple[float, Sequence[_Key]]]) -> Mapping[_Key, float]:
    """Sum ``weight / (60 + rank)`` over the rankings (each a weight and its keys, best first, ranks from 1).

    A key that a ranking lacks gets nothing from it. The result is in the order of first appearance, unsorted.
    """
    scores: dict[_Key, float] = {}
    for weight, keys in rankings:
        for rank, key in enumerate(keys, start=1):
            scores[key] = scores.get(key, 0.0) + weight / (RANK_CONSTANT + rank)
    return scores
