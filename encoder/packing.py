"""Sequences laid end to end in one row, and what the layers must know so that none sees its neighbours.

Knows tensors only. Letters as in ``encoder/mamba.py``; ``m`` counts the tokens that stand among the first ``k - 1`` of
a sequence other than the first: their convolution would reach over a border.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_PADDING_MAX = 1 / 8
SHORT_TOKENS_MAX = 64
_SHORT_PADDING_MAX = 1 / 2


@dataclass(frozen=True, slots=True)
class PaddedTexts:
    """Which token stands where when each of some short sequences, laid end to end, has a row of its own.

    ``t`` counts the tokens, ``r`` the cells of the rows, ``b`` times ``l``. A cell behind a sequence's end holds its
    last token again. One sequence alone stands as it is: there ``cells`` is None, and the other tensors are empty.
    """

    lengths: tuple[int, ...]
    shape: tuple[int, int]  # b, l: as many rows as sequences, as wide as the longest
    tokens: Tensor  # (r,) the token in each cell
    spaced: Tensor  # (r,) its place where k - 1 more stand between each sequence and the next
    cells: Tensor | None  # (t,) the cell of each token

    @classmethod
    def of(cls, lengths: Sequence[int], taps: int) -> PaddedTexts | None:
        """Give each sequence a row, or None where one is long, or more than half of the cells would be padding."""
        rows, width = len(lengths), max(lengths)
        if width > SHORT_TOKENS_MAX or sum(lengths) < (1 - _SHORT_PADDING_MAX) * rows * width:
            return None
        if rows == 1:
            nothing = torch.empty(0, dtype=torch.int64)
            return cls(lengths=tuple(lengths), shape=(1, width), tokens=nothing, spaced=nothing, cells=None)
        counts, column = torch.tensor(lengths)[:, None], torch.arange(width)
        tokens = counts.cumsum(0) - counts + torch.minimum(column, counts - 1)  # (b, l)
        return cls(
            lengths=tuple(lengths),
            shape=(rows, width),
            tokens=tokens.flatten(),
            spaced=(tokens + (taps - 1) * torch.arange(rows)[:, None]).flatten(),
            cells=(column < counts).flatten().nonzero()[:, 0],
        )


@dataclass(frozen=True, slots=True)
class Packing:
    """Which sequence each token of a packed row belongs to."""

    lengths: tuple[int, ...]
    seq_idx: Tensor  # (1, l) int32, rising from 0: the number of each token's sequence
    edges: Tensor  # (m,) places of the tokens near the start of a sequence
    sources: Tensor  # (m, k) places that an edge's convolution reads, oldest first, itself last
    inside: Tensor  # (m, k) bool: whether a source lies in the edge's own sequence
    padded: PaddedTexts | None = None  # on a CPU, where all sequences are short and of like length

    @classmethod
    def of(cls, lengths: Sequence[int], taps: int, device: torch.device | str = "cpu") -> Packing:
        """Lay sequences of these lengths (each at least 1) end to end; ``taps`` is the convolution's width."""
        counts = torch.tensor(lengths)
        starts = torch.cumsum(counts, 0) - counts  # (sequences,)
        seq_idx = torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int32), counts)
        near = torch.arange(taps - 1) < counts[1:, None]  # (sequences - 1, k - 1)
        edges = (starts[1:, None] + torch.arange(taps - 1))[near]
        sources = edges[:, None] + torch.arange(1 - taps, 1)  # (m, k)
        inside = sources >= starts[1:].repeat_interleave(near.sum(1))[:, None]
        return cls(
            lengths=tuple(lengths),
            seq_idx=to_device(seq_idx[None], device),
            edges=to_device(edges, device),
            sources=to_device(sources.clamp_min(0), device),
            inside=to_device(inside, device),
            padded=PaddedTexts.of(lengths, taps) if torch.device(device).type == "cpu" else None,
        )

    @classmethod
    def of_rows(cls, ends: Tensor, width: int) -> Packing:
        """Separate the text of each row, up to its last token at ``ends (b,)``, from the padding after it.

        For the layers in plain torch, which read ``seq_idx`` only, here ``(b, width)``.
        """
        return cls.of_sequences((torch.arange(width, device=ends.device) > ends[:, None]).int())

    @classmethod
    def of_sequences(cls, seq_idx: Tensor) -> Packing:
        """Separate the sequences that share rows; ``seq_idx (b, l)`` int32 differs from one to the next.

        For layers that read ``seq_idx`` only, those that train.
        """
        nothing = seq_idx.new_empty(0, dtype=torch.int64)
        return cls(lengths=(), seq_idx=seq_idx, edges=nothing, sources=nothing, inside=nothing)

    def reversed(self) -> Packing:
        """Give the packing of the same row read from right to left."""
        if not self.lengths:
            return replace(self, seq_idx=self.seq_idx.flip(1))
        return Packing.of(self.lengths[::-1], self.sources.shape[1], self.seq_idx.device)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Give a tensor of the CPU on ``device``; the caller does not wait for a GPU that is still at something else."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def rows_of_like_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group sequences, longest first, that may stand in padded rows together: at most an eighth would be padding."""
    group: list[int] = []
    total = 0
    for number in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if group and total + lengths[number] < (1 - _PADDING_MAX) * lengths[group[0]] * (len(group) + 1):
            yield group
            group, total = [], 0
        group.append(number)
        total += lengths[number]
    if group:
        yield group
