"""Numbers distinct keys in the order they come, in 16 bytes a key: a corpus of millions fits. Knows no meaning of keys.

A key is known by 64 bits of its BLAKE2 digest: among ten million keys the chance that any two share them is 3 in a
million.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.training.token_store import Numbers

Digests = NDArray[np.uint64]


class Numbering:
    """Sorted runs of digests, merged as they grow, so that each key is looked up in a few of them."""

    def __init__(self) -> None:
        self._runs: list[tuple[Digests, Numbers]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, keys: Sequence[str]) -> Numbers:
        """Look keys up, ``(n,)``; -1 where one is not known."""
        return self._look_up(_digests(keys))

    def number(self, keys: Sequence[str]) -> tuple[Numbers, NDArray[np.intp]]:
        """Give the numbers of keys, ``(n,)``, and which of the keys came for the first time, in their order."""
        digests, first, inverse = np.unique(_digests(keys), return_index=True, return_inverse=True)
        numbers = self._look_up(digests)
        new = np.flatnonzero(numbers < 0)
        new = new[np.argsort(first[new])]
        numbers[new] = np.arange(self._count, self._count + len(new))
        self._count += len(new)
        if len(new):
            added = np.sort(new)
            self._add(digests[added], numbers[added])
        return numbers[inverse], first[new]

    def _look_up(self, digests: Digests) -> Numbers:
        numbers = np.full(len(digests), -1, dtype=np.int64)
        for keys, values in self._runs:
            at = np.minimum(np.searchsorted(keys, digests), len(keys) - 1)
            found = keys[at] == digests
            numbers[found] = values[at[found]]
        return numbers

    def _add(self, digests: Digests, numbers: Numbers) -> None:
        while self._runs and len(self._runs[-1][0]) <= 2 * len(digests):
            keys, values = self._runs.pop()
            digests, numbers = np.concatenate([keys, digests]), np.concatenate([values, numbers])
            order = np.argsort(digests, kind="stable")
            digests, numbers = digests[order], numbers[order]
        self._runs.append((digests, numbers))


def _digests(keys: Sequence[str]) -> Digests:
    joined = b"".join(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys)
    return np.frombuffer(joined, dtype=np.uint64)
