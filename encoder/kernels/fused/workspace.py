"""What a forward pass works in: made once a pass, written and read by each layer in turn.

Letters as in ``encoder/mamba.py``, and ``q`` tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from encoder.kernels.fused import hopper_scan
from encoder.kernels.fused.memory import Shapes
from encoder.model_config import ModelConfig

CHUNK_SIZE = 64
_CHUNK_SIZE_MIN = 16  # a side of the smallest product on tensor cores


@dataclass(frozen=True, slots=True)
class Tiles:
    """Descriptors of what is scanned tile by tile, for kernels of Triton or for those of Gluon."""

    values: Any  # convolved in tiles (q, p)
    keys: Any  # convolved in tiles (q, n)
    gates: Any  # projected in tiles (q, p)
    scores: Any  # in tiles (q, q)
    values_together: Any  # convolved in tiles of the heads that one program finds states of


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
    y: Tensor  # (l, e): what out_proj reads
    squares: Tensor  # (h, l) float32
    out: Tensor  # (l, d): out_proj's output
    keys_of: TensorDescriptor  # convolved in tiles (q, n)
    tiles: Tiles
    on_hopper: bool  # whether tiles are for the kernels in Gluon

    @staticmethod
    def shapes(config: ModelConfig, length: int, width: int, dtypes: tuple[torch.dtype, ...]) -> Shapes:
        """Say what memory it needs for ``length`` tokens; ``width`` is in_proj's with its padding.

        ``dtypes`` are the model's, and those of what in_proj and out_proj read.
        """
        dtype, read, read_last = dtypes
        e, h, g, q = config.d_inner, config.n_heads, config.n_groups, chunk_size_for(length)
        return {
            "normed": ((length, config.d_model), read),
            "projected": ((length, width), dtype),
            "convolved": ((length, e + 2 * g * config.d_state), dtype),
            "steps": ((h, length), torch.float32),
            "scores": ((length, g, q), dtype),
            "terms": ((h, 4, length), torch.float32),
            "y": ((length, e), read_last),
            "squares": ((h, length), torch.float32),
            "out": ((length, config.d_model), dtype),
        }

    @classmethod
    def of(cls, config: ModelConfig, tensors: Mapping[str, Tensor]) -> Workspace:
        """Make it of tensors in these :meth:`shapes`."""
        projected, convolved, scores = tensors["projected"], tensors["convolved"], tensors["scores"]
        e, h, g, n, q = config.d_inner, config.n_heads, config.n_groups, config.d_state, scores.shape[2]
        on_hopper = hopper_scan.covers(q, e // h, n, h // g, projected.device)
        describe = hopper_scan.describe if on_hopper else TensorDescriptor.from_tensor
        sides, together = [q, e // h], [q, (hopper_scan.HEADS if on_hopper else 1) * e // h]
        tiles = Tiles(
            describe(convolved, sides),
            describe(convolved, [q, n]),
            describe(projected, sides),
            describe(scores.flatten(1), [q, q]),
            describe(convolved, together),
        )
        keys_of = TensorDescriptor.from_tensor(convolved, [q, n])
        return cls(chunk_size=q, keys_of=keys_of, tiles=tiles, on_hopper=on_hopper, **tensors)


def chunk_size_for(length: int) -> int:
    """Give the chunk size for a row's length: a short query is one short chunk."""
    size = _CHUNK_SIZE_MIN
    while size < min(length, CHUNK_SIZE):
        size *= 2
    return size
