"""A Transformer's layer, for research: what a model of the same size with attention in place of the scan would do.

The modern encoder: pre-norm, rotary positions, gated MLP, no biases. It reads both ways and has no state, so that no
document streams. Letters as in ``encoder/mamba.py``, but for the attention's own: h heads of p channels, ``h p = d``.
Sources: Vaswani et al. 2017 (arXiv 1706.03762); Su et al. 2021 (rotary positions, arXiv 2104.09864); Shazeer 2020
(SwiGLU, arXiv 2002.05202); Warner et al. 2024 (ModernBERT, arXiv 2412.13663).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder.model_config import ModelConfig
from encoder.packing import Packing

_ROTARY_BASE = 10_000.0


class TransformerBlock(nn.Module):
    """Attention, then a gated MLP of width ``expand * d_model``; the residual stays float32.

    Has the ``forward`` of :class:`encoder.mamba.Block`, and its matrices' names, so that the same code trains and
    stores them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.mixer = Attention(config)
        self.norm_mlp = nn.RMSNorm(config.d_model, config.norm_eps)
        self.mlp = GatedMlp(config)

    def forward(
        self, residual: Tensor, dtype: torch.dtype, state: None = None, packing: Packing | None = None
    ) -> tuple[Tensor, None]:
        """Read ``residual (b, l, d)`` float32, computing in ``dtype``; return the new residual, and no state."""
        assert state is None  # the backbone refuses to read on
        residual = residual + self.mixer(self.norm(residual).to(dtype), packing).float()
        return residual + self.mlp(self.norm_mlp(residual).to(dtype)).float(), None


class Attention(nn.Module):
    """Multi-head attention of every token to every other of its sequence."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.in_proj = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=False)
        _scale_down(self.out_proj, config.n_layers)

    def forward(self, u: Tensor, packing: Packing | None = None) -> Tensor:
        """Mix ``u (b, l, d)``; the result has its shape and dtype."""
        projected = F.linear(u, self.in_proj.weight.to(u.dtype)).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in projected.unbind(2))  # (b, h, l, p) each
        cos, sin = _rotations(u.shape[1], q.shape[-1], u)
        mask = None if packing is None else _reach(packing)
        y = F.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v, mask)  # (b, h, l, p)
        return F.linear(y.transpose(1, 2).flatten(2), self.out_proj.weight.to(u.dtype))


class GatedMlp(nn.Module):
    """SwiGLU: two projections in, one of them a gate, one out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.in_proj = nn.Linear(config.d_model, 2 * config.d_inner, bias=False)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False)
        _scale_down(self.out_proj, config.n_layers)

    def forward(self, u: Tensor) -> Tensor:
        """Transform each token of ``u (b, l, d)``."""
        gate, value = F.linear(u, self.in_proj.weight.to(u.dtype)).chunk(2, dim=-1)  # (b, l, e) each
        return F.linear(F.silu(gate) * value, self.out_proj.weight.to(u.dtype))


def _scale_down(out_proj: nn.Linear, n_layers: int) -> None:
    """Residual sums grow with depth, and a layer adds to them twice."""
    with torch.no_grad():
        out_proj.weight /= math.sqrt(2 * n_layers)


def _rotations(length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Give cosine and sine of each position's angles, ``(l, p / 2)`` in the dtype and on the device of ``like``."""
    exponents = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = positions[:, None] * _ROTARY_BASE**-exponents
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of channels of ``x (b, h, l, p)`` by their position's angles."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _reach(packing: Packing) -> Tensor:
    """Say what may be attended to: ``(b, 1, 1, l)`` where rows hold one text and padding, else ``(1, 1, l, l)``.

    Without its first form, which is the same for all tokens of a row, no fused kernel would serve training.
    """
    if not packing.lengths:
        return (packing.seq_idx == 0)[:, None, None]
    return packing.seq_idx[:, None, :, None] == packing.seq_idx[:, None, None]
