"""Some values of each of many lists, at random and none twice. Knows not what they mean."""

from __future__ import annotations

import numpy as np

from encoder.training.token_store import Numbers, RaggedArray

_LOOKED_AT_MAX = 256


def pick(lists: RaggedArray, rows: Numbers, count: int, rng: np.random.Generator, *, first: bool = False) -> Numbers:
    """Choose ``count`` values of each row at random, none twice: ``(b, count)``, -1 where a row has too few.

    With ``first`` the row's first value is one of them, and stands first. Of a list over 256 a stretch is looked at.
    """
    lengths = lists.lengths[rows]
    looked_at = np.minimum(lengths, _LOOKED_AT_MAX)
    skipped = rng.integers(0, lengths - looked_at + 1)
    order = rng.random((len(rows), max(int(looked_at.max(initial=0)), count)))
    order[np.arange(order.shape[1]) >= looked_at[:, None]] = 2.0
    if first:
        skipped[:] = 0
        order[:, 0] = np.where(looked_at > 0, -1.0, 2.0)
    chosen = np.argsort(order, axis=1, kind="stable")[:, :count]
    there = chosen < looked_at[:, None]
    places = lists.starts[rows][:, None] + skipped[:, None] + chosen
    picked = np.full(chosen.shape, -1, dtype=np.int64)
    picked[there] = lists.values[places[there]]
    return picked
