"""Which examples fit which width, and which of them make the next batch. Knows numbers, not tokens.

A row holds special tokens beside its text: of a width, ``room`` columns are left to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.training.shuffling import permuted
from encoder.training.token_store import Numbers

PARTS_MAX = 2**20  # of one text


@dataclass(frozen=True, slots=True)
class Bucket:
    """Examples that are read in rows of the same widths."""

    examples: Numbers
    widths: tuple[int, ...]  # special tokens included
    batch_size: int


class Draw(NamedTuple):
    """What one process reads in one step."""

    examples: Numbers  # (batch_size,)
    widths: tuple[int, ...]
    key: tuple[int, ...]  # for further choices: differs from batch to batch and from process to process


class Buckets:
    """All buckets of a set for one kind of batch. In an epoch each example is drawn once, a few twice to fill up."""

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self.buckets = tuple(bucket for bucket in buckets if len(bucket.examples))

    def _batches(self, world_size: int) -> Numbers:
        """Count each bucket's steps in an epoch, ``(buckets,)``."""
        return np.array([-(-len(b.examples) // (b.batch_size * world_size)) for b in self.buckets], dtype=np.int64)

    def batches_per_epoch(self, world_size: int) -> int:
        """Count the steps in which every example is drawn."""
        return int(self._batches(world_size).sum())

    def draw(self, seed: int, step: int, rank: int, world_size: int) -> Draw:
        """Draw the batch of one process. All processes read the same widths at a step, and different examples."""
        counts = self._batches(world_size)
        epoch, position = divmod(step, int(counts.sum()))
        slot = int(permuted(np.array([position]), int(counts.sum()), (seed, 3, epoch))[0])
        number = int(np.searchsorted(np.cumsum(counts), slot, side="right"))
        bucket = self.buckets[number]
        batch = slot - int(counts[:number].sum())
        places = (batch * world_size + rank) * bucket.batch_size + np.arange(bucket.batch_size)
        order = permuted(places % len(bucket.examples), len(bucket.examples), (seed, 4, epoch, number))
        return Draw(bucket.examples[order], bucket.widths, (seed, step, rank))


def check_room(widths: Sequence[int], room: int) -> None:
    """Refuse widths that leave no token: :class:`InvalidInput`."""
    if widths[0] <= room:
        raise InvalidInput("widths", f"widths begins with {widths[0]}; {room} columns are for special tokens alone.")


def number_parts(texts: Numbers, counts: Numbers) -> Numbers:
    """Give each of ``texts (n,)``, cut into ``counts (n,)`` parts, a number a part: ``text * PARTS_MAX + part``."""
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(texts * PARTS_MAX, counts) + np.arange(len(first)) - first


def by_width(examples: Numbers, lengths: Numbers, widths: Sequence[int], room: int, batch_size: int) -> Buckets:
    """Sort ``examples (n,)`` of ``lengths (n,)`` tokens into widths; too few of one join those of the next.

    ``batch_size`` is that of the widest; of a narrower one there are as many more as make up as many tokens.
    """
    last = len(widths) - 1
    places = merge_small(fit(lengths, widths, room), [min(n + 1, last) for n in range(last + 1)], batch_size)
    return Buckets([Bucket(examples[places == n], (w,), batch_size * (widths[-1] // w)) for n, w in enumerate(widths)])


def fit(lengths: Numbers, widths: Sequence[int], room: int) -> NDArray[np.int64]:
    """Give the place in ``widths`` of the narrowest that holds each length ``(n,)``; the widest for what fits none."""
    return np.minimum(np.searchsorted(np.asarray(widths) - room, lengths), len(widths) - 1)


def merge_small(places: NDArray[np.int64], wider: Sequence[int], smallest: int) -> NDArray[np.int64]:
    """Move examples of a bucket with fewer than ``smallest`` into the wider one.

    ``places (n,)`` are the examples' buckets; ``wider[i]`` is a later bucket that holds all that bucket ``i`` can, or
    ``i`` itself where there is none.
    """
    sizes = np.bincount(places, minlength=len(wider))
    target = np.arange(len(wider))
    for number, other in enumerate(wider):
        if sizes[number] < smallest and other != number:
            sizes[other] += sizes[number]
            target[number] = other
    for number in reversed(range(len(wider))):
        target[number] = target[target[number]]
    return target[places]
