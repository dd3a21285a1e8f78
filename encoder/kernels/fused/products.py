"""The matrix products of a fused layer: cuBLAS in the dtype of the model, or in 8 bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROW_MULTIPLE = 16  # of what cuBLAS writes: rows are then read and written in steps of 16 bytes and more
EIGHT_BITS = torch.float8_e4m3fn
_LARGEST = torch.finfo(EIGHT_BITS).max


class Product(nn.Module):
    """``x W^T`` for ``x (l, in)``; with ``eight_bits`` ``x`` and the weights are 8-bit floats, the result is not.

    Weights have one scale for all of them, and so has ``x``: an 8-bit float keeps its precision over four decades.
    """

    weight: Tensor
    input_scale: Tensor
    weight_scale: Tensor

    def __init__(self, weight: Tensor, dtype: torch.dtype, *, eight_bits: bool, normed: bool = True) -> None:
        """Take ``weight (out, in)`` float32; outputs are filled up to a multiple of ``ROW_MULTIPLE``.

        Of 8 bits, ``x`` is to come multiplied by ``spread``: if ``normed``, its largest value is before at most the
        root of ``in``. Otherwise that is 1.
        """
        super().__init__()
        self.dtype = dtype
        self.eight_bits = eight_bits
        weight = F.pad(weight, (0, 0, 0, -len(weight) % ROW_MULTIPLE)).detach()
        self.spread = _LARGEST / weight.shape[1] ** 0.5 if eight_bits and normed else 1.0
        if eight_bits:
            scale = weight.abs().max() / _LARGEST
            self.register_buffer("weight_scale", scale, persistent=False)
            self.register_buffer("input_scale", torch.full_like(scale, 1 / self.spread), persistent=False)
            weight = weight / scale
        self.register_buffer("weight", weight.to(self.input_dtype).contiguous(), persistent=False)

    @property
    def input_dtype(self) -> torch.dtype:
        """What ``x`` must have."""
        return EIGHT_BITS if self.eight_bits else self.dtype

    def forward(self, x: Tensor, rows: slice = slice(None), out: Tensor | None = None) -> Tensor:
        """Multiply ``x (l, in)`` by some rows of the weights: ``(l, rows)``, in ``out`` if given."""
        weight = self.weight[rows].T
        if not self.eight_bits:
            return torch.mm(x, weight, out=out)
        scales = {"scale_a": self.input_scale, "scale_b": self.weight_scale}
        return torch._scaled_mm(x, weight, **scales, out_dtype=self.dtype, use_fast_accum=True, out=out)
