"""Several rankings of the same candidates made one, and a distribution to learn from it. Knows no texts.

Ranks by words and by meaning err differently, so that their fusion is a better teacher than either on long documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput

Scores = NDArray[np.float32]
RRF_K = 60  # Cormack, Clarke and Buettcher, SIGIR 2009

Method = Literal["rrf", "zscore"]


def fuse(rankings: Sequence[Scores], method: Method, weights: Sequence[float] | None = None) -> Scores:
    """Fuse scores ``(queries, candidates)`` of several rankers into one such array, higher is better.

    ``rrf`` adds ``weight / (60 + rank)``, with the mean rank where scores are equal; ``zscore`` adds the scores, each
    ranker's with mean 0 and deviation 1 over a query's candidates. -inf marks where a query has no candidate, and stays
    -inf. :class:`InvalidInput` where arrays or weights do not agree.
    """
    weights = [1.0] * len(rankings) if weights is None else list(weights)
    if not rankings or len(weights) != len(rankings) or len({scores.shape for scores in rankings}) != 1:
        shapes = [scores.shape for scores in rankings]
        raise InvalidInput("rankings", f"rankings of shapes {shapes} with {len(weights)} weights cannot be fused.")
    there = np.logical_and.reduce([np.isfinite(scores) for scores in rankings])
    one = _reciprocal_ranks if method == "rrf" else _standardized
    fused = np.zeros(there.shape)
    for weight, scores in zip(weights, rankings, strict=True):
        fused += weight * one(np.where(there, scores, -np.inf), there)
    return np.where(there, fused, -np.inf).astype(np.float32)


def targets(scores: NDArray[np.floating], temperature: float) -> Scores:
    """Turn scores ``(queries, candidates)`` into weights that sum to 1 a row: their softmax; 0 where a score is -inf.

    Each row needs one finite score.
    """
    logits = scores.astype(np.float64) / temperature
    weights: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


def _reciprocal_ranks(scores: Scores, there: NDArray[np.bool_]) -> NDArray[np.float64]:
    # A candidate's rank is the mean of those it could have among its equals.
    above = np.zeros(scores.shape, dtype=np.float64)
    for row, found in zip(above, scores, strict=True):
        _, inverse, counts = np.unique(-found, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        row[:] = (last - (counts - 1) / 2)[inverse]
    return np.where(there, 1 / (RRF_K + above), 0)


def _standardized(scores: Scores, there: NDArray[np.bool_]) -> NDArray[np.float64]:
    counts = np.maximum(there.sum(axis=1, keepdims=True), 1)
    known = np.where(there, scores, 0).astype(np.float64)
    centred = np.where(there, known - known.sum(axis=1, keepdims=True) / counts, 0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / counts)
    # All equal: nobody is preferred.
    return np.where(deviation > 0, centred / np.where(deviation > 0, deviation, 1), 0)
