"""How a row of sequences is cut into segments that programs scan side by side, and what the kernels must know of it.

A segment that begins where a sequence does needs nothing of the one before it; one that begins within a sequence needs
the state there, for which the segment before is read once more. So sequences are read whole where they fit in the time
that all tokens take, shared evenly, and only what is left over is cut. That is list scheduling, the longest first
(Graham 1969): a device that starts programs in their order, one whenever another ends, does just that.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

MULTIPROCESSORS = 132  # of a large device
SEGMENT_TOKENS_MIN = 256  # shorter segments cost more than they bring
STATES_TOKENS = 200  # read on in the time that it takes to launch what finds states, however few
_ROUNDS = 3  # of segments of whole sequences, one after the other, which even out what lengths leave uneven
_TOLERANCE = 0.03  # of an even share, that a sequence may be longer than what is left of it


class Scanning(NamedTuple):
    """How a layer scans a row, as far as it matters to where that is cut."""

    programs: int  # that scan a segment
    at_once: int  # programs that a device runs side by side
    chunk: int  # tokens that a program reads together
    state_cost: float  # of finding the state after a token, where to read on costs 1
    states_at_once: int  # segments whose states are found side by side

    @property
    def segments_at_once(self) -> int:
        """How many segments are read side by side."""
        return max(1, self.at_once // self.programs)

    @property
    def segments_max(self) -> int:
        """How many segments of whole sequences a row is cut into, at most."""
        return _ROUNDS * self.segments_at_once


class Segments(NamedTuple):
    """Where segments begin and end, at which of these places a sequence goes on, and which segments are read first."""

    bounds: NDArray[np.int32]  # (s + 1,)
    carried: NDArray[np.int32]  # (s + 1,) 1 or 0
    order: NDArray[np.int32]  # (s,) by falling length


@dataclass(frozen=True, slots=True)
class FusedPacking:
    """Sequences laid end to end in a row, as the kernels read them."""

    length: int  # tokens of the row
    marks: Tensor | None  # (l) int32, differing from one sequence to the next; None where there is one
    ends: Tensor  # (n) int64: the place of each sequence's last token
    bounds: Tensor  # (s + 1) int32
    carried: Tensor | None  # (s + 1) int32; None where no segment reads on within a sequence
    order: Tensor  # (s) int32: segments, the longest first
    segments: int
    segment_tokens_max: int
    limit: Tensor | None = None  # (1) int32: tokens that are read, and no state knows those behind; None: all


def cut_at_starts(lengths: NDArray[np.int64], segments: int) -> NDArray[np.int32]:
    """Cut a row of sequences of these lengths into at most so many ``segments``, each of whole sequences: ``(s + 1,)``.

    Where no sequence is longer than an even share, no segment is longer than two.
    """
    starts = np.concatenate([[0], lengths.cumsum()])
    borders = np.arange(1, segments) * starts[-1] // segments
    after = np.searchsorted(starts, borders)
    later, earlier = starts[after], starts[np.maximum(after - 1, 0)]
    nearest = np.where(later - borders < borders - earlier, later, earlier)
    found: NDArray[np.int32] = np.unique(np.concatenate([[0, starts[-1]], nearest])).astype(np.int32)
    return found


def falling(bounds: NDArray[np.int32]) -> NDArray[np.int32]:
    """Order segments by falling length: ``(s,)``."""
    return np.argsort(-np.diff(bounds), kind="stable").astype(np.int32)


def cut(lengths: Sequence[int], scanning: Scanning) -> Segments:
    """Cut a row of sequences of these lengths, each at least 1, into segments.

    None is cut within where reading the longest takes no longer than finding states and reading their parts would.
    """
    counts = np.asarray(lengths, dtype=np.int64)
    starts = np.concatenate([[0], counts.cumsum()])  # the last is the row's end
    total = int(starts[-1])
    segments_max = max(1, total // SEGMENT_TOKENS_MIN)
    slots = min(scanning.segments_at_once, segments_max)
    segments = min(scanning.segments_max, segments_max)
    bounds = cut_at_starts(counts, segments)
    (long,) = np.nonzero(counts * segments > total)
    if len(long):
        bounds = _with(bounds, starts[long], starts[long + 1])
        bounds = _cut_within(bounds, starts, starts[long], slots, scanning)
    return Segments(bounds, _within(bounds, starts).astype(np.int32), falling(bounds))


def _with(bounds: NDArray[np.int32], *more: ArrayLike) -> NDArray[np.int32]:
    """Add borders, each once."""
    return np.unique(np.concatenate([bounds, *more])).astype(np.int32)


def _within(places: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which places of a row are within a sequence."""
    within: NDArray[np.bool_] = starts[np.searchsorted(starts, places)] != places
    return within


def _cut_within(
    bounds: NDArray[np.int32], starts: NDArray[np.int64], long: NDArray[np.int64], slots: int, scanning: Scanning
) -> NDArray[np.int32]:
    """Cut sequences that begin at ``long``, each now a segment, where that saves time."""
    share = int(bounds[-1]) / slots
    tokens, may_cut = np.diff(bounds), np.zeros(len(bounds) - 1, dtype=np.bool_)
    may_cut[np.searchsorted(bounds, long)] = True
    # What is shorter than any of them is read last, and evens out what they leave.
    (first,) = np.nonzero(tokens >= tokens[may_cut].min())
    segments = list(zip((-tokens[first]).tolist(), bounds[first].tolist(), may_cut[first].tolist(), strict=True))
    heapq.heapify(segments)
    whole, _ = _schedule(segments.copy(), slots, float("inf"), scanning.chunk)
    if whole <= share * (1 + _TOLERANCE) + STATES_TOKENS:
        return bounds
    scanned, borders = _schedule(segments, slots, share, scanning.chunk)
    found = _refine(_with(bounds, borders), starts, scanning)
    again = np.diff(found)[_within(found[1:], starts)]
    if not len(again):
        return bounds
    states = scanning.state_cost * max(again.sum() / slots, again.max())
    return found if scanned + states + STATES_TOKENS < whole else bounds


def _schedule(left: list[tuple[int, int, bool]], slots: int, share: float, chunk: int) -> tuple[float, list[int]]:
    """Assign segments, the longest first, to the slot that has the fewest tokens; give the most that a slot gets.

    They are a heap of their tokens, negative, their starts, and whether they may be cut. Of one that may, and does not
    fit in a slot's share, the end fills the slot, and what is before it is a shorter segment; the borders are given,
    too. It is the end, as nothing reads on from that: it is read only once.
    """
    loads, borders = [0.0] * slots, list[int]()
    limit = share + max(_TOLERANCE * share, chunk)
    while left:
        negative, start, cuttable = left[0]
        tokens, load = -negative, loads[0]
        if cuttable and load + tokens > limit:
            room = max(share - load, SEGMENT_TOKENS_MIN)
            end = -int(-room // chunk) * chunk  # whole chunks
            if end < tokens:
                borders.append(start + tokens - end)
                heapq.heapreplace(left, (end - tokens, start, True))
                heapq.heapreplace(loads, load + end)
                continue
        heapq.heappop(left)
        heapq.heapreplace(loads, load + tokens)
    return max(loads), borders


def _refine(bounds: NDArray[np.int32], starts: NDArray[np.int64], scanning: Scanning) -> NDArray[np.int32]:
    """Cut segments that are read twice into parts that are shared evenly when states are found."""
    tokens, again, chunk = np.diff(bounds), _within(bounds[1:], starts), scanning.chunk
    part = max(int(tokens[again].sum()) / scanning.states_at_once, 2 * SEGMENT_TOKENS_MIN)
    parts = np.where(again, np.maximum(1, np.rint(tokens / part)), 1).astype(np.int64)
    segment = np.repeat(np.arange(len(parts)), parts)
    number = np.arange(len(segment)) - np.repeat(parts.cumsum() - parts, parts)
    begins = bounds[segment] + tokens[segment] * number // parts[segment] // chunk * chunk
    return _with(bounds, begins)


def pack(lengths: Sequence[int], scanning: Scanning, device: torch.device) -> FusedPacking:
    """Lay sequences of these lengths end to end on a device, cut as by :func:`cut`."""
    bounds, carried, order = cut(lengths, scanning)
    total, segments = int(bounds[-1]), len(order)
    counts = np.asarray(lengths, dtype=np.int32)
    # In one copy, which waits for nothing.
    tensors = torch.from_numpy(np.concatenate([bounds, carried, order, counts]))
    on_device = (tensors.pin_memory() if device.type == "cuda" else tensors).to(device, non_blocking=True)
    on_bounds, on_carried, on_order, on_counts = on_device.split([segments + 1, segments + 1, segments, len(counts)])
    numbers = torch.arange(len(lengths), dtype=torch.int32, device=device)
    return FusedPacking(
        length=total,
        marks=None if len(lengths) == 1 else torch.repeat_interleave(numbers, on_counts, output_size=total),
        ends=on_counts.cumsum(0) - 1,
        bounds=on_bounds,
        carried=on_carried if carried.any() else None,
        order=on_order,
        segments=segments,
        segment_tokens_max=int(np.diff(bounds).max()),
    )
