"""The memory that a forward pass works in: made once a pass, written and read by each layer in turn.

Letters as in ``encoder/mamba.py``, and ``q`` tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from encoder.model_config import ModelConfig

CHUNK_SIZE = 64
_CHUNK_SIZE_MIN = 16  # a side of the smallest product on tensor cores


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
    values_of: TensorDescriptor  # convolved in tiles (q, p)
    keys_of: TensorDescriptor  # convolved in tiles (q, n)
    gates_of: TensorDescriptor  # projected in tiles (q, p)
    scores_of: TensorDescriptor  # in tiles (q, q)

    @classmethod
    def of(
        cls, config: ModelConfig, length: int, width: int, dtype: torch.dtype, read: torch.dtype, device: torch.device
    ) -> Workspace:
        """Make it for ``length`` tokens; ``width`` is in_proj's with its padding, which reads ``read``."""
        e, h, g, n, q = config.d_inner, config.n_heads, config.n_groups, config.d_state, chunk_size_for(length)
        f = e + 2 * g * n

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        projected, convolved, scores = empty(length, width), empty(length, f), empty(length, g, q)
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
            values_of=TensorDescriptor.from_tensor(convolved, [q, e // h]),
            keys_of=TensorDescriptor.from_tensor(convolved, [q, n]),
            gates_of=TensorDescriptor.from_tensor(projected, [q, e // h]),
            scores_of=TensorDescriptor.from_tensor(scores.flatten(1), [q, q]),
        )


def chunk_size_for(length: int) -> int:
    """Give the chunk size for a row's length: a short query is one short chunk."""
    size = _CHUNK_SIZE_MIN
    while size < min(length, CHUNK_SIZE):
        size *= 2
    return size
