"""The memory that forward passes work in, taken once, for as many tokens as most of them have. Knows no Triton."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]

_ALIGNMENT = 512  # bytes, as of what CUDA gives: what a GPU copies tile by tile begins at a multiple of less


class Memory:
    """Lends one pass after the other the same memory, so that a long text needs no more of it than a short one."""

    def __init__(self, device: torch.device) -> None:
        self._block = torch.empty(0, dtype=torch.uint8, device=device)

    def reserve(self, shapes: Shapes) -> None:
        """Take as much as tensors of these shapes need; only once, as CUDA graphs go on using what they were lent."""
        if len(self._block):
            raise RuntimeError("memory was reserved before")
        self._block = self._block.new_empty(_bytes_of(shapes))

    def lend(self, shapes: Shapes) -> dict[str, Tensor]:
        """Give tensors of these shapes, not filled, until the next are lent; their own memory if they need more."""
        needed = _bytes_of(shapes)
        block = self._block if needed <= len(self._block) else self._block.new_empty(needed)
        tensors, start = {}, 0
        for name, (shape, dtype) in shapes.items():
            size = math.prod(shape) * dtype.itemsize
            tensors[name] = block[start : start + size].view(dtype).view(shape)
            start += _aligned(size)
        return tensors


def _bytes_of(shapes: Shapes) -> int:
    return sum(_aligned(math.prod(shape) * dtype.itemsize) for shape, dtype in shapes.values())


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
