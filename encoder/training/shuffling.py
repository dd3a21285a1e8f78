"""Orders that need no memory: the place of one item in a shuffled list, computed alone. Resuming is a number.

A permutation of n items is a Feistel network over the next power of four, walked until it lands below n (Black and
Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_BLOCK = 1024  # turns that share out the sources among them exactly


def mix(*parts: int | NDArray[np.integer]) -> NDArray[np.uint64]:
    """Hash whole numbers into 64 bits, element by element (the finalizer of SplitMix64 after each)."""
    state: NDArray[np.uint64] = np.asarray(0x9E3779B97F4A7C15, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = state ^ np.asarray(part).astype(np.uint64)
            state = state + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def permuted(positions: NDArray[np.int64], count: int, key: Sequence[int]) -> NDArray[np.int64]:
    """Say which items of ``count`` stand at ``positions (n,)``, each below it, of their list shuffled by ``key``."""
    half = max((max(count - 1, 1).bit_length() + 1) // 2, 1)
    mask, shift = np.uint64(2**half - 1), np.uint64(half)
    keys = [mix(*key, number) for number in range(_ROUNDS)]
    found = np.asarray(positions).astype(np.uint64)
    outside = np.ones(len(found), dtype=bool)
    while outside.any():
        left, right = found[outside] >> shift, found[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (mix(right ^ round_key) & mask)
        found[outside] = (left << shift) | right
        outside = found >= count
    return found.astype(np.int64)


class Turn(NamedTuple):
    """Whose turn a step is."""

    choice: int  # of the weights
    occurrence: int  # how many turns it had before


def turn(weights: Sequence[float], seed: int, step: int) -> Turn:
    """Share steps out by ``weights``: each block of 1,024 holds each index its share of times, but for rounding.

    What rounding takes in one block it gives in another, so that the smallest weight has its turns, too.
    """
    edges = np.cumsum(np.asarray(weights, dtype=np.float64))
    edges /= edges[-1]
    block, position = divmod(step, _BLOCK)
    # Points (i + u) / block; u differs from block to block.
    shifts = (mix(seed, 1, np.arange(block + 1)) >> np.uint64(11)) / 2.0**53
    below = np.clip(np.ceil(edges * _BLOCK - shifts[:, None]), 0, _BLOCK).astype(np.int64)  # (blocks, weights)
    slots = permuted(np.arange(position + 1), _BLOCK, (seed, 2, block))
    owners = np.searchsorted(below[block], slots, side="right")
    choice = int(owners[-1])
    earlier = int(np.diff(below[:block], axis=1, prepend=0)[:, choice].sum())
    return Turn(choice, earlier + int((owners[:-1] == choice).sum()))
