"""A Mamba-2 layer over short texts on a CPU, in float32: as few operations as it takes. Letters: ``encoder/mamba.py``.

A query has a dozen tokens. Its two projections take half the time of a layer; every other step takes what a call of
torch costs, whatever it computes. So a text is one chunk and keeps no state; the decays between its tokens are worked
out pair by pair (Dao and Gu 2024, arXiv 2405.21060, the quadratic form), which no range limits; the skip ``D`` stands
on the diagonal; and a root mean square is the hypotenuse of a row's length and a constant. Projections and convolution
read the texts end to end, only the scan reads padded rows. ``t`` counts the tokens of all texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from encoder.model_config import ModelConfig
from encoder.packing import PaddedTexts

# Less is nothing in float32, and exp is slow where its result has no full precision.
_LOG_DECAY_MIN = -80.0


@dataclass(frozen=True, slots=True)
class ShortTextsLayer:
    """One layer whose heads share B and C. The weights of its norms are those of the projections after them."""

    config: ModelConfig
    in_proj: Callable[[Tensor], Tensor]  # (t, d) to (t, e + f + h)
    out_proj: Callable[[Tensor], Tensor]  # (t, e) to (t, d)
    taps: tuple[Tensor, ...]  # k of (f), the oldest first
    conv_bias: Tensor  # (f)
    dt_bias: Tensor  # (h)
    a: Tensor  # (h, 1)
    skip: Tensor  # (h, 1)
    before: Tensor  # (k - 1, f): zeros, what a text's convolution finds before it
    floors: tuple[Tensor, Tensor]  # of (): what the lengths of rows of d and of e are at least
    zero: Tensor  # ()

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        in_proj: Callable[[Tensor], Tensor],
        out_proj: Callable[[Tensor], Tensor],
        *,
        kernel: Tensor,
        conv_bias: Tensor,
        dt_bias: Tensor,
        a: Tensor,
        skip: Tensor,
    ) -> ShortTextsLayer:
        """Take the weights as :class:`encoder.kernels.cpu.CpuBlock` has them, float32; ``kernel (k, f)``."""
        return cls(
            config=config,
            in_proj=in_proj,
            out_proj=out_proj,
            taps=kernel.unbind(0),
            conv_bias=conv_bias,
            dt_bias=dt_bias,
            a=a[:, None],
            skip=skip,
            before=torch.zeros_like(kernel[1:]),
            floors=(_floor(config.d_model, config.norm_eps), _floor(config.d_inner, config.norm_eps)),
            zero=kernel.new_zeros(()),
        )

    def read(self, residual: Tensor, texts: PaddedTexts) -> Tensor:
        """Read texts end to end, ``residual (t, d)`` float32; return the new residual."""
        config = self.config
        e, heads, f = config.d_inner, config.n_heads, len(self.conv_bias)
        norm = _norm(residual, self.floors[0])
        u = torch.addcdiv(self.zero, residual, norm, value=math.sqrt(config.d_model))
        gate, mixed, steps = self.in_proj(u).split_with_sizes([e, f, heads], 1)  # (t, e), (t, f), (t, h)
        convolved = self._convolve(mixed, texts)
        dt = F.softplus(steps + self.dt_bias)  # (t, h)
        if texts.cells is None:
            y = self._scan(convolved[None], dt[None])[0]  # (t, h, p)
        else:
            y = self._scan(
                convolved.index_select(0, texts.spaced).view(*texts.shape, f),
                dt.index_select(0, texts.tokens).view(*texts.shape, heads),
            )
            y = y.reshape(-1, e).index_select(0, texts.cells)  # (t, e)
        gated = F.silu(gate)  # (t, e), dense
        gated.view(y.shape).mul_(y)
        out = self.out_proj(gated)
        return torch.addcdiv(residual, out, _norm(gated, self.floors[1]), value=math.sqrt(e))

    def _convolve(self, mixed: Tensor, texts: PaddedTexts) -> Tensor:
        """Convolve ``(t, f)`` causally per channel, then SiLU.

        Returns ``(t, f)``; of several texts with k - 1 rows of no use between each and the next.
        """
        kept = len(self.before)
        pieces = (mixed,) if texts.cells is None else mixed.split_with_sizes(texts.lengths)
        spaced = torch.cat([piece for text in pieces for piece in (self.before, text)])
        rows = len(spaced) - kept
        result = torch.addcmul(self.conv_bias, spaced.narrow(0, kept, rows), self.taps[-1])
        for number, tap in enumerate(self.taps[:-1]):
            result.addcmul_(spaced.narrow(0, number, rows), tap)
        return F.silu(result, inplace=True)

    def _scan(self, convolved: Tensor, dt: Tensor) -> Tensor:
        """Scan texts row by row, ``convolved (b, l, f)`` and ``dt (b, l, h)``; return ``(b, l, h, p)``."""
        e, n = self.config.d_inner, self.config.d_state
        x, b_in, c_out = convolved.split_with_sizes([e, n, n], 2)
        scores = torch.bmm(c_out, b_in.transpose(1, 2)).tril_()  # (b, l, l)
        dt = dt.transpose(1, 2).contiguous()  # (b, h, l)
        decay = torch.cumsum(dt * self.a, 2)
        weights = decay.unsqueeze(3) - decay.unsqueeze(2)  # (b, h, l, l): row i, column j
        weights.clamp_(_LOG_DECAY_MIN, 0.0).exp_().mul_(scores.unsqueeze(1)).mul_(dt.unsqueeze(2))
        weights.diagonal(0, 2, 3).add_(self.skip)
        x = x.unflatten(2, (self.config.n_heads, -1)).transpose(1, 2)  # (b, h, l, p)
        return torch.bmm(weights.flatten(0, 1), x.flatten(0, 1)).view(x.shape).transpose(1, 2)


def _floor(width: int, eps: float) -> Tensor:
    return torch.tensor(math.sqrt(width * eps))


def _norm(x: Tensor, floor: Tensor) -> Tensor:
    """Give for each row of ``(t, width)`` its root mean square, with eps, times the root of ``width``: ``(t, 1)``."""
    return torch.hypot(torch.linalg.vector_norm(x, dim=1, keepdim=True), floor)
