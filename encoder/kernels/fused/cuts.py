"""How a row of sequences is cut into segments that programs scan side by side, and what the kernels must know of it.

A segment that begins where a sequence does needs nothing of the one before it; one that begins within a sequence needs
the state there, which has to be found first. So borders move to the nearest start of a sequence, if it is near enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MULTIPROCESSORS = 132  # of a large device
PROGRAMS = 6 * MULTIPROCESSORS  # at two or three at once
SEGMENT_TOKENS_MIN = 256  # shorter segments cost more than they bring


class Segments(NamedTuple):
    """Where segments begin and end, and which read on within a sequence."""

    bounds: NDArray[np.int32]  # (s + 1,)
    carried: NDArray[np.int32]  # (s,) 1 or 0


@dataclass(frozen=True, slots=True)
class FusedPacking:
    """Sequences laid end to end in a row, as the kernels read them."""

    length: int  # tokens of the row
    marks: Tensor | None  # (l) int32, differing from one sequence to the next; None where there is one
    ends: Tensor  # (n) int64: the place of each sequence's last token
    bounds: Tensor  # (s + 1) int32
    carried: Tensor | None  # (s) int32; None where no segment reads on within a sequence
    segments: int
    segment_tokens_max: int


def cut_at_starts(lengths: NDArray[np.int64], segments: int) -> NDArray[np.int32]:
    """Cut a row of sequences of these lengths into at most so many ``segments``, each of whole sequences: ``(s + 1,)``.

    Where no sequence is longer than an even share, no segment is longer than two.
    """
    starts = np.concatenate([[0], lengths.cumsum()])
    borders = np.arange(1, segments) * starts[-1] // segments
    found: NDArray[np.int32] = np.unique([0, starts[-1], *_nearest(starts, borders)]).astype(np.int32)
    return found


def _nearest(starts: NDArray[np.int64], borders: NDArray[np.int64]) -> NDArray[np.int64]:
    after = np.searchsorted(starts, borders)
    later, earlier = starts[after], starts[np.maximum(after - 1, 0)]
    return np.where(later - borders < borders - earlier, later, earlier)


def cut(lengths: Sequence[int], programs: int, *, sparingly: bool = False) -> Segments:
    """Cut a row of sequences of these lengths, each at least 1, into segments for some ``programs`` each.

    ``sparingly``: not within sequences that are read before all multiprocessors, sharing evenly, have read all.
    """
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64))
    total = int(ends[-1])
    wanted = max(1, min(-(-PROGRAMS // programs), total // SEGMENT_TOKENS_MIN))
    target = total / wanted
    borders = np.rint(np.arange(1, wanted) * target).astype(np.int64)
    starts = np.concatenate([[0], ends])  # the last is the row's end, no start; borders there fall away
    after = np.searchsorted(starts, borders)
    nearest = _nearest(starts, borders)
    at_start = np.abs(nearest - borders) * 2 <= target
    if sparingly:
        at_start |= starts[after] - starts[after - 1] <= total * programs // MULTIPROCESSORS
    borders = np.where(at_start, nearest, borders)
    bounds = np.unique(np.concatenate([[0, total], borders]))
    carried = ~np.isin(bounds[:-1], starts)
    return Segments(bounds.astype(np.int32), carried.astype(np.int32))


def pack(lengths: Sequence[int], programs: int, device: torch.device, *, sparingly: bool = False) -> FusedPacking:
    """Lay sequences of these lengths end to end on a device, cut as by :func:`cut`."""
    bounds, carried = cut(lengths, programs, sparingly=sparingly)
    total, segments = int(bounds[-1]), len(carried)
    counts = np.asarray(lengths, dtype=np.int32)
    # In one copy, which waits for nothing.
    tensors = torch.from_numpy(np.concatenate([bounds, carried, counts]))
    on_device = (tensors.pin_memory() if device.type == "cuda" else tensors).to(device, non_blocking=True)
    on_counts = on_device[2 * segments + 1 :]
    numbers = torch.arange(len(lengths), dtype=torch.int32, device=device)
    return FusedPacking(
        length=total,
        marks=None if len(lengths) == 1 else torch.repeat_interleave(numbers, on_counts, output_size=total),
        ends=on_counts.cumsum(0) - 1,
        bounds=on_device[: segments + 1],
        carried=on_device[segments + 1 : 2 * segments + 1] if carried.any() else None,
        segments=segments,
        segment_tokens_max=int(np.diff(bounds).max()),
    )
