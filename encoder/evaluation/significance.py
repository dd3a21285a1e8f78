"""How sure a measurement is: bootstrap confidence intervals of means, and paired tests of a difference.

The queries of a set stand for all queries that might be asked. Drawing as many of them again, with replacement, says
how far a mean would move (percentile bootstrap, Efron 1979; for retrieval Sakai 2006, "Evaluating evaluation metrics
based on the bootstrap"). Two systems are compared on the same queries; the randomization test (Fisher; for retrieval
Smucker, Allan and Carterette 2007) asks how often a difference this large comes from swapping their labels at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
_BLOCK_DRAWS = 1 << 21  # drawn at once, to bound memory


@dataclass(frozen=True, slots=True)
class Difference:
    """How a system's mean differs from a baseline's on the same queries."""

    mean: float  # system - baseline
    low: float  # of the 95 % interval
    high: float
    p_bootstrap: float  # two-sided
    p_randomization: float  # two-sided

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0, and the randomization test agrees at 5 %."""
        return (self.low > 0 or self.high < 0) and self.p_randomization < 1 - CONFIDENCE


def confidence_interval(values: NDArray[np.float64], *, seed: int = SEED) -> tuple[float, float]:
    """Give the 95 % interval of the mean of ``values`` ``(q,)``."""
    low, high = _interval(_bootstrap_means(values, seed))
    return low, high


def compare(values: NDArray[np.float64], baseline: NDArray[np.float64], *, seed: int = SEED) -> Difference:
    """Compare a system with a baseline; both are ``(q,)``, of the same queries in the same order."""
    if values.shape != baseline.shape or not len(values):
        raise ValueError(f"a comparison needs the same queries on both sides, not {values.shape} and {baseline.shape}")
    differences = values - baseline
    mean = float(differences.mean())
    means = _bootstrap_means(differences, seed)
    low, high = _interval(means)
    # Under the null hypothesis the differences have mean 0: how often do they, shifted there, reach the one observed?
    beyond = np.count_nonzero(np.abs(means - mean) >= abs(mean) - _ROUNDING)
    swapped = _swapped_means(differences, seed)
    return Difference(
        mean=mean,
        low=low,
        high=high,
        p_bootstrap=(int(beyond) + 1) / (SAMPLES + 1),
        p_randomization=(int(np.count_nonzero(np.abs(swapped) >= abs(mean) - _ROUNDING)) + 1) / (SAMPLES + 1),
    )


# Sums in another order differ in their last bits.
_ROUNDING = 1e-12


def _interval(means: NDArray[np.float64]) -> tuple[float, float]:
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)


def _bootstrap_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of ``SAMPLES`` samples with replacement."""
    generator = np.random.default_rng(seed)
    blocks = [
        values[generator.integers(0, len(values), (rows, len(values)), dtype=np.int32)].mean(axis=1)
        for rows in _block_sizes(len(values))
    ]
    return np.concatenate(blocks)


def _swapped_means(differences: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means where each query's difference keeps or changes its sign at random."""
    generator = np.random.default_rng(seed + 1)
    blocks = []
    for rows in _block_sizes(len(differences)):
        signs = generator.integers(0, 2, (rows, len(differences)), dtype=np.int8).astype(np.float32) * 2 - 1
        blocks.append(signs @ differences / len(differences))
    return np.concatenate(blocks)


def _block_sizes(length: int) -> list[int]:
    rows = max(1, _BLOCK_DRAWS // length)
    return [min(rows, SAMPLES - start) for start in range(0, SAMPLES, rows)]
