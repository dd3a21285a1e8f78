"""The memory that a forward pass works in: made once a pass, written and read by each layer in turn.

Letters as in ``encoder/mamba.py``, and ``q`` tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from encoder.kernels.fused import hopper_scan
from encoder.model_config import ModelConfig

CHUNK_SIZE = 64
_TOGETHER_WIDTH_MAX = 64  # of a head: registers hold the states of two
_CHUNK_SIZE_MIN = 16  # a side of the smallest product on tensor cores


@dataclass(frozen=True, slots=True)
class Tiles:
    """Descriptors of what the scan reads tile by tile, in one form or another."""

    values: Any  # convolved in tiles (q, p)
    keys: Any  # convolved in tiles (q, n)
    gates: Any  # projected in tiles (q, p)
    scores: Any  # in tiles (q, q)


@dataclass(frozen=True, slots=True)
class Workspace:
    """What lies between the kernels of a layer."""

    chunk_size: int
    normed: Tensor  # (l, d): what in_proj reads
    projected: Tensor  # (l, w): its output
    convolved: Tensor  # (l, f)
    steps: Tensor  # (h, l) float32
    scores: Tensor  # (l, g, q)
    terms: Tensor  # (h, 4, l) float32
    y: Tensor  # (l, e)
    squares: Tensor  # (h, l) float32
    out: Tensor  # (l, d): out_proj's output
    tiles: Tiles  # as Triton reads them
    heads_together: int  # that share a reading of B where states are found
    values_together: TensorDescriptor  # convolved in tiles of their channels
    hopper_tiles: Tiles | None  # as Gluon does, where its scan runs

    @classmethod
    def of(
        cls, config: ModelConfig, length: int, width: int, dtype: torch.dtype, read: torch.dtype, device: torch.device
    ) -> Workspace:
        """Make it for ``length`` tokens; ``width`` is in_proj's with its padding, which reads ``read``."""
        e, h, g, n, q = config.d_inner, config.n_heads, config.n_groups, config.d_state, chunk_size_for(length)
        f = e + 2 * g * n

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        together = 2 if h // g % 2 == 0 and e // h <= _TOGETHER_WIDTH_MAX else 1
        projected, convolved, scores = empty(length, width), empty(length, f), empty(length, g, q)

        def tiles(describe: Callable[[Tensor, list[int]], Any]) -> Tiles:
            sides = [q, e // h]
            return Tiles(
                describe(convolved, sides),
                describe(convolved, [q, n]),
                describe(projected, sides),
                describe(scores.flatten(1), [q, q]),
            )

        return cls(
            chunk_size=q,
            normed=empty(length, config.d_model, dtype=read),
            projected=projected,
            convolved=convolved,
            steps=empty(h, length, dtype=torch.float32),
            scores=scores,
            terms=empty(h, 4, length, dtype=torch.float32),
            y=empty(length, e),
            squares=empty(h, length, dtype=torch.float32),
            out=empty(length, config.d_model),
            tiles=tiles(TensorDescriptor.from_tensor),
            heads_together=together,
            values_together=TensorDescriptor.from_tensor(convolved, [q, together * e // h]),
            hopper_tiles=tiles(hopper_scan.describe) if hopper_scan.covers(q, e // h, n, device) else None,
        )


def chunk_size_for(length: int) -> int:
    """Give the chunk size for a row's length: a short query is one short chunk."""
    size = _CHUNK_SIZE_MIN
    while size < min(length, CHUNK_SIZE):
        size *= 2
    return size
