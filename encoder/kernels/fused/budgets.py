"""Budgets of tokens for CUDA graphs, and how texts are laid out in one. Knows no Triton."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from encoder.kernels.fused.cuts import SEGMENT_TOKENS_MIN, Scanning, cut_at_starts, falling

_SMALLEST = 16
ONE_SEGMENT_TOKENS = 512  # read in one segment
_MIDDLING_TOKENS = 8192  # up to so many it costs nothing to speak of to read what is left of a budget
# Who finds states at less than this cost scans a long text whole in the time that its kernels would take to launch.
_CHEAP_STATE = 0.5
_TIMES_TOKENS_MAX = 1.5  # that a larger budget may have of what is read: reading the rest is no longer cheap
_STEPS = 4  # of larger budgets from one power of two to the next: at most a fifth is left

_Numbers = TypeVar("_Numbers", NDArray[np.int32], Tensor)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a graph has room for."""

    tokens: int
    texts: int
    segments: int
    text_tokens_max: int  # of the longest text: none is cut, so that no state has to be found within it

    @property
    def share(self) -> int:
        """Tokens of a segment, if all are even."""
        return self.tokens // self.segments

    @property
    def segment_tokens_max(self) -> int:
        """Tokens of the longest segment."""
        return min(self.tokens, 2 * (max(self.share, self.text_tokens_max) + 1))

    def takes(self, tokens: int, texts: int, longest: int) -> bool:
        """Say whether some texts, of so many tokens together, fit in, and leave not too much of it."""
        fits = tokens <= self.tokens and texts <= self.texts and longest <= self.text_tokens_max
        return fits and self.tokens <= max(_MIDDLING_TOKENS, _TIMES_TOKENS_MAX * tokens)

    @property
    def size(self) -> int:
        """How many numbers a graph reads."""
        return 2 * self.tokens + self.texts + 2 * self.segments + 1

    def lay_out(self, given: NDArray[np.int32], tokens: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        """Fill ``given`` with what a graph reads for texts that fit in, laid end to end in ``tokens``.

        That is its :meth:`parts` end to end. What is left of the budget are texts, too, of zeros: all tokens belong to
        one that is not too long.
        """
        ids, marks, places, bounds, order = self.parts(given)
        count, total = len(lengths), len(tokens)
        ids[:total], ids[total:] = tokens, 0
        places[:count], places[count:] = lengths.cumsum() - 1, 0
        if self.segments == 1:  # a query: sooner than any detour
            marks[:total], marks[total:] = np.arange(count).repeat(lengths), count
            bounds[:], order[:] = (0, self.tokens), 0
            return
        left, most = self.tokens - total, self.share
        filling = np.full(-(-left // most), most)
        filling[-1:] = left - most * (len(filling) - 1)
        every = np.concatenate([lengths, filling]).astype(np.int64)
        marks[:] = np.repeat(np.arange(len(every), dtype=np.int32), every)
        found = cut_at_starts(every, self.segments)
        bounds[: len(found)], bounds[len(found) :] = found, self.tokens  # segments that are left have no tokens
        order[:] = falling(bounds)

    def parts(self, given: _Numbers) -> tuple[_Numbers, _Numbers, _Numbers, _Numbers, _Numbers]:
        """Cut what a graph reads into its parts.

        Ids ``(l,)``, marks ``(l,)``, places of ends ``(n,)``, bounds ``(s + 1,)``, and segments by falling length
        ``(s,)``.
        """
        first, second, third = self.tokens, 2 * self.tokens, 2 * self.tokens + self.texts
        fourth = third + self.segments + 1
        return given[:first], given[first:second], given[second:third], given[third:fourth], given[fourth:]


def sizes(tokens_max: int, *, doubling_until: int = _MIDDLING_TOKENS) -> Iterator[int]:
    """Give sizes of graphs in tokens, up to ``tokens_max``: at first each is double the last, then a step more."""
    tokens = _SMALLEST
    while tokens <= tokens_max:
        yield tokens
        tokens += tokens if tokens < doubling_until else (1 << tokens.bit_length() - 1) // _STEPS


def budgets(scanning: Scanning, tokens_max: int) -> Iterator[Budget]:
    """Give the budgets, up to one of ``tokens_max``."""
    for tokens in sizes(tokens_max):
        if tokens <= ONE_SEGMENT_TOKENS:
            yield Budget(tokens, tokens // 4, 1, tokens)
        else:
            segments = min(scanning.segments_max, tokens // SEGMENT_TOKENS_MIN)
            whole = tokens <= _MIDDLING_TOKENS and scanning.state_cost <= _CHEAP_STATE
            text_tokens_max = tokens if whole else max(ONE_SEGMENT_TOKENS, tokens // segments)
            yield Budget(tokens, tokens // 16, segments, text_tokens_max)
