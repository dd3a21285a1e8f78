"""Hits that differ from each other: maximal marginal relevance (Carbonell, Goldstein 1998). Knows no index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.index.interface import ChunkKey
from services.search.explaining import Diverse

# Candidates that are looked at: four for each hit, and these bounds.
POOL_PER_HIT = 4
POOL_MIN = 100
POOL_MAX = 400


def pool_size(wanted: int) -> int:
    """Say among how many candidates so many hits are chosen."""
    return min(max(POOL_PER_HIT * wanted, POOL_MIN), POOL_MAX)


def diversify(
    pool: Sequence[ChunkKey],
    scores: Mapping[ChunkKey, float],
    embeddings: Mapping[ChunkKey, NDArray[np.float32]],
    before: Sequence[ChunkKey],
    mmr_lambda: float,
    count: int,
) -> dict[ChunkKey, Diverse]:
    """Choose ``count`` chunks of a pool that is sorted, best first, in the order chosen, beside those ``before``.

    Next is always the chunk with the most ``lambda * relevance - (1 - lambda) * greatest cosine to one chosen``.
    Relevance is the score, scaled so that the pool's best has 1 and its :data:`POOL_MIN`-th (or last) 0: so a larger
    pool, which a later page looks at, scales no differently. Embeddings are ``(d,)`` of length 1; a chunk without
    one, which has left the index meanwhile, is like no other.
    """
    if not pool:
        return {}
    places = {key: place for place, key in enumerate(pool)}
    some = next(iter(embeddings.values()), np.zeros(1, dtype=np.float32))
    vectors = np.stack([embeddings.get(key, np.zeros_like(some)) for key in pool])  # (n, d)
    values = np.array([scores[key] for key in pool])  # (n,)
    last = values[min(POOL_MIN, len(pool)) - 1]
    spread = values[0] - last
    relevance = (values - last) / spread if spread > 0 else np.ones(len(pool))
    likeness = np.full(len(pool), -np.inf)  # (n,) greatest cosine to one chosen
    free = np.ones(len(pool), dtype=bool)
    for key in before:
        if key in places:
            free[places[key]] = False
            likeness = np.maximum(likeness, vectors @ vectors[places[key]])
    chosen: dict[ChunkKey, Diverse] = {}
    while len(chosen) < count and free.any():
        first = not np.isfinite(likeness[0])
        value = mmr_lambda * relevance - (0 if first else (1 - mmr_lambda) * likeness)
        place = int(np.argmax(np.where(free, value, -np.inf)))  # of equal ones the first, which ranks higher
        chosen[pool[place]] = Diverse(None if first else float(likeness[place]), float(value[place]))
        free[place] = False
        likeness = np.maximum(likeness, vectors @ vectors[place])
    return chosen
