"""The Mamba-2 backbone in plain torch: token ids in, hidden states out. Knows no tokenizer, no pooling, no gRPC.

Letters of the shapes in the comments:

    b  batch                 l  length in tokens      d  model width           e  inner width, expand * d
    h  heads, e / p          p  channels of a head    g  groups sharing B, C   n  state size
    k  taps of the convolution                        f  width of the convolution, e + 2 g n

Parameter names are those of mamba_ssm's ``MixerModel``, so that its checkpoints load without renaming.
Source: Dao and Gu 2024 (arXiv 2405.21060); mamba_ssm/modules/mamba2.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder.model_config import ModelConfig
from encoder.scan import CHUNK_SIZE, chunked_scan

# Longest stretch that one call of the scan reads; longer texts go through in pieces with their state carried.
PIECE_TOKENS = 32 * CHUNK_SIZE
_ROW_MULTIPLE = 16  # tensor cores read matrices whose sides are multiples of 16 bytes; the odd rows of in_proj are not


class LayerState(NamedTuple):
    """What one layer remembers of all tokens before: enough to read on as if it had never stopped."""

    conv: Tensor  # (b, k - 1, f): last inputs of the convolution
    ssm: Tensor  # (b, h, p, n), float32


class RMSNorm(nn.Module):
    """Root mean square norm over the last dimension, in float32, optionally over groups and gated.

    With a gate it is mamba_ssm's ``RMSNormGated(norm_before_gate=False)``: ``norm(x * silu(gate)) * weight``.
    """

    def __init__(self, width: int, eps: float, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.groups = groups

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Norm ``x (..., width)``; the result has the dtype of the weight."""
        value = x.float()
        if gate is not None:
            value = value * F.silu(gate.float())
        grouped = value.unflatten(-1, (self.groups, -1))
        grouped = grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + self.eps)
        result: Tensor = grouped.flatten(-2) * self.weight.float()
        return result


class Mixer(nn.Module):
    """One Mamba-2 layer: projection, short convolution, scan, gated norm, projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        e, h, gn = config.d_inner, config.n_heads, config.n_groups * config.d_state
        self.conv_width = e + 2 * gn
        self.in_proj = nn.Linear(config.d_model, 2 * e + 2 * gn + h, bias=False)
        self.conv1d = nn.Conv1d(self.conv_width, self.conv_width, config.d_conv, groups=self.conv_width)
        self.dt_bias = nn.Parameter(_initial_dt_bias(h))
        self.A_log = nn.Parameter(torch.log(torch.empty(h).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(h))
        self.norm = RMSNorm(e, config.norm_eps, groups=config.n_groups)
        self.out_proj = nn.Linear(e, config.d_model, bias=False)

    def forward(self, u: Tensor, state: LayerState | None = None) -> tuple[Tensor, LayerState]:
        """Read ``u (b, l, d)`` on from ``state``; return ``(b, l, d)`` and the new state."""
        config = self.config
        b, l, _ = u.shape
        weight = self.in_proj.weight.to(u.dtype)
        if u.is_cuda:
            weight = F.pad(weight, (0, 0, 0, -weight.shape[0] % _ROW_MULTIPLE))
        projected = F.linear(u, weight)  # (b, l, 2e + 2gn + h)
        z, xbc, dt = projected[..., : self.in_proj.out_features].split(
            [config.d_inner, self.conv_width, config.n_heads], dim=-1
        )
        xbc, tail = self._convolve(xbc, None if state is None else state.conv)
        x, b_in, c_out = xbc.split(
            [config.d_inner, config.n_groups * config.d_state, config.n_groups * config.d_state], dim=-1
        )
        x = x.view(b, l, config.n_heads, config.head_dim)  # (b, l, h, p)
        y, ssm = chunked_scan(
            x,
            F.softplus(dt.float() + self.dt_bias.float()),  # (b, l, h)
            -torch.exp(self.A_log.float()),  # (h)
            b_in.view(b, l, config.n_groups, config.d_state),  # (b, l, g, n)
            c_out.view(b, l, config.n_groups, config.d_state),  # (b, l, g, n)
            None if state is None else state.ssm,
        )
        y = y + x * self.D.to(x.dtype)[:, None]  # (b, l, h, p)
        y = self.norm(y.flatten(-2), z).to(u.dtype)  # (b, l, e)
        return F.linear(y, self.out_proj.weight.to(u.dtype)), LayerState(conv=tail, ssm=ssm)

    def _convolve(self, xbc: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        """Convolve ``(b, l, f)`` causally per channel, then SiLU; also return the last k - 1 inputs."""
        taps = self.config.d_conv
        # (b, k - 1 + l, f)
        padded = F.pad(xbc, (0, 0, taps - 1, 0)) if tail is None else torch.cat([tail.to(xbc.dtype), xbc], dim=1)
        kernel = self.conv1d.weight[:, 0].to(xbc.dtype).T.contiguous()  # (k, f)
        bias = self.conv1d.bias
        assert bias is not None  # nn.Conv1d made one
        mixed = bias.to(xbc.dtype) + padded[:, : xbc.shape[1]] * kernel[0]
        for tap in range(1, taps):
            mixed = mixed + padded[:, tap : tap + xbc.shape[1]] * kernel[tap]
        return F.silu(mixed), padded[:, -(taps - 1) :]


class Block(nn.Module):
    """Pre-norm residual block round a mixer; the residual stays float32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = Mixer(config)

    def forward(
        self, residual: Tensor, dtype: torch.dtype, state: LayerState | None = None
    ) -> tuple[Tensor, LayerState]:
        """Read ``residual (b, l, d)`` float32, computing in ``dtype``; return the new residual and state."""
        mixed, state = self.mixer(self.norm(residual).to(dtype), state)
        return residual + mixed.float(), state


class Mamba(nn.Module):
    """Embedding, blocks, final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm_f = RMSNorm(config.d_model, config.norm_eps)
        self.apply(lambda module: _initialize(module, config.n_layers))

    def forward(
        self, tokens: Tensor, dtype: torch.dtype, states: list[LayerState] | None = None
    ) -> tuple[Tensor, list[LayerState]]:
        """Read ``tokens (b, l)`` (at most :data:`PIECE_TOKENS`) on from ``states``, one per layer.

        Matrix products run in ``dtype``. Returns the hidden states ``(b, l, d)``, float32, and the new states.
        """
        residual = self.embedding(tokens).float()  # (b, l, d)
        after: list[LayerState] = []
        for number, block in enumerate(self.layers):
            residual, state = block(residual, dtype, None if states is None else states[number])
            after.append(state)
        return self.norm_f(residual), after


def _initial_dt_bias(heads: int, dt_min: float = 1e-3, dt_max: float = 0.1) -> Tensor:
    """Draw time steps log-uniformly between the bounds, and invert softplus (mamba_ssm/modules/mamba2.py)."""
    dt = torch.exp(torch.rand(heads) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))
    return dt + torch.log(-torch.expm1(-dt))


def _initialize(module: nn.Module, n_layers: int) -> None:
    """Small normal embeddings; out_proj scaled down by depth, as residual sums grow with it (mixer_seq_simple.py)."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, Mixer):
        with torch.no_grad():
            module.out_proj.weight /= math.sqrt(n_layers)
