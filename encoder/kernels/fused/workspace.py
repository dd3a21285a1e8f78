"""The memory that a forward pass works in: made once a pass, written and read by each layer in turn.

Letters as in ``encoder/mamba.py``, and ``q`` tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from encoder.kernels.fused import hopper_scan
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

    @classmethod
    def of(
        cls, config: ModelConfig, length: int, width: int, dtypes: tuple[torch.dtype, ...], device: torch.device
    ) -> Workspace:
        """Make it for ``length`` tokens; ``width`` is in_proj's with its padding.

        ``dtypes`` are the model's, and those of what in_proj and out_proj read.
        """
        dtype, read, read_last = dtypes
        e, h, g, n, q = config.d_inner, config.n_heads, config.n_groups, config.d_state, chunk_size_for(length)
        f = e + 2 * g * n

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        on_hopper = hopper_scan.covers(q, e // h, n, h // g, device)
        projected, convolved, scores = empty(length, width), empty(length, f), empty(length, g, q)

        describe = hopper_scan.describe if on_hopper else TensorDescriptor.from_tensor
        sides, together = [q, e // h], [q, (hopper_scan.HEADS if on_hopper else 1) * e // h]
        return cls(
            chunk_size=q,
            normed=empty(length, config.d_model, dtype=read),
            projected=projected,
            convolved=convolved,
            steps=empty(h, length, dtype=torch.float32),
            scores=scores,
            terms=empty(h, 4, length, dtype=torch.float32),
            y=empty(length, e, dtype=read_last),
            squares=empty(h, length, dtype=torch.float32),
            out=empty(length, config.d_model),
            keys_of=TensorDescriptor.from_tensor(convolved, [q, n]),
            tiles=Tiles(
                describe(convolved, sides),
                describe(convolved, [q, n]),
                describe(projected, sides),
                describe(scores.flatten(1), [q, q]),
                describe(convolved, together),
            ),
            on_hopper=on_hopper,
        )


def chunk_size_for(length: int) -> int:
    """Give the chunk size for a row's length: a short query is one short chunk."""
    size = _CHUNK_SIZE_MIN
    while size < min(length, CHUNK_SIZE):
        size *= 2
    return size
