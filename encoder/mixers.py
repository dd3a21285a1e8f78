"""The state-space layers of Mamba-1 and Mamba-2 in plain torch, and their norm. Letters as in ``encoder/mamba.py``.

Parameter names are those of mamba_ssm's ``Mamba`` and ``Mamba2``, so that its checkpoints load without renaming.
Without selection (``selective=False``) time step, B and C are parameters in place of projections of the input.
Sources: Gu and Dao 2023 (arXiv 2312.00752), mamba_ssm/modules/mamba_simple.py; Dao and Gu 2024 (arXiv 2405.21060),
mamba_ssm/modules/mamba2.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder.kernels import training_mixer, training_scan
from encoder.model_config import ModelConfig
from encoder.packing import Packing
from encoder.scan import chunked_scan
from encoder.selective_scan import selective_scan

_ROW_MULTIPLE = 16  # tensor cores read matrices whose sides are multiples of 16 bytes; the odd rows of in_proj are not


class LayerState(NamedTuple):
    """What one layer remembers of all tokens before: enough to read on as if it had never stopped."""

    conv: Tensor  # (b, k - 1, f): last inputs of the convolution
    ssm: Tensor  # (b, h, p, n), or (b, e, n) in Mamba-1; float32


def state_shapes(config: ModelConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Give the shapes of one layer's state, ``conv`` and ``ssm``, for one document."""
    if config.architecture == "mamba1":
        return (1, config.d_conv - 1, config.d_inner), (1, config.d_inner, config.d_state)
    width = config.d_inner + (2 * config.n_groups * config.d_state if config.selective else 0)
    return (1, config.d_conv - 1, width), (1, config.n_heads, config.d_inner // config.n_heads, config.d_state)


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
        """Norm ``x (..., width)``; the result is float32."""
        value = x.float()
        if gate is not None:
            value = value * F.silu(gate.float())
        grouped = value.unflatten(-1, (self.groups, -1))
        grouped = grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + self.eps)
        result: Tensor = grouped.flatten(-2) * self.weight.float()
        return result


class Mamba2Mixer(nn.Module):
    """One Mamba-2 layer: projection, short convolution, scan, gated norm, projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        e, h, g, n = config.d_inner, config.n_heads, config.n_groups, config.d_state
        self.conv_width = e + 2 * g * n if config.selective else e
        self.in_proj = nn.Linear(config.d_model, e + self.conv_width + (h if config.selective else 0), bias=False)
        self.conv1d = nn.Conv1d(self.conv_width, self.conv_width, config.d_conv, groups=self.conv_width)
        if not config.selective:
            self.B = nn.Parameter(torch.randn(g, n))
            self.C = nn.Parameter(torch.randn(g, n))
        self.dt_bias = nn.Parameter(_initial_dt_bias(h))
        self.A_log = nn.Parameter(torch.log(torch.empty(h).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(h))
        self.norm = RMSNorm(e, config.norm_eps, groups=g)
        self.out_proj = nn.Linear(e, config.d_model, bias=False)

    def forward(
        self, u: Tensor, state: LayerState | None = None, packing: Packing | None = None
    ) -> tuple[Tensor, LayerState | None]:
        """Read ``u (b, l, d)`` on from ``state``; return ``(b, l, d)`` and the new state (packed, it may be None)."""
        weight = self.in_proj.weight.to(u.dtype)
        if u.is_cuda:
            weight = F.pad(weight, (0, 0, 0, -weight.shape[0] % _ROW_MULTIPLE))
        projected = F.linear(u, weight)  # (b, l, e + f + h, and any padding)
        if training_mixer.covers(projected, self.config):
            y, state = self._core(projected, state, packing)
        else:
            y, state = self._plain_core(projected[..., : self.in_proj.out_features], state, packing)
        return F.linear(y, self.out_proj.weight.to(u.dtype)), state

    def _core(
        self, projected: Tensor, state: LayerState | None, packing: Packing | None
    ) -> tuple[Tensor, LayerState | None]:
        """Compute what stands between the projections in kernels; packed, without a new state."""
        own = training_mixer.Parameters(
            kernel=self.conv1d.weight[:, 0].float(),
            bias=_bias(self.conv1d).float(),
            dt_bias=self.dt_bias.float(),
            a=-torch.exp(self.A_log.float()),
            d=self.D.float(),
            norm=self.norm.weight.float(),
        )
        tail, ssm = (None, None) if state is None else (state.conv.to(projected.dtype), state.ssm)
        seq_idx = None if packing is None else packing.seq_idx
        config = self.config
        y, tail, ssm = training_mixer.mixer_core(projected, own, config.n_groups, config.norm_eps, tail, ssm, seq_idx)
        return y, LayerState(conv=tail, ssm=ssm) if packing is None else None

    def _plain_core(
        self, projected: Tensor, state: LayerState | None, packing: Packing | None
    ) -> tuple[Tensor, LayerState]:
        """Compute the same in plain torch; without selection, scan in kernels where they can."""
        config = self.config
        b, l, _ = projected.shape
        z, convolved, dt = projected.tensor_split([config.d_inner, config.d_inner + self.conv_width], dim=-1)
        convolved, tail = convolve(convolved, self.conv1d, None if state is None else state.conv, packing)
        x, b_in, c_out = self._split(convolved)
        x = x.unflatten(-1, (config.n_heads, -1))  # (b, l, h, p)
        steps = dt.float() if config.selective else torch.zeros(b, l, config.n_heads, device=projected.device)
        dt = F.softplus(steps + self.dt_bias.float())  # (b, l, h)
        a = -torch.exp(self.A_log.float())  # (h)
        ssm = None if state is None else state.ssm
        seq_idx = None if packing is None else packing.seq_idx
        if training_scan.covers(x, x.shape[3], config.d_state):
            y, ssm = training_scan.training_scan(x, dt, a, b_in, c_out, self.D.float(), ssm, seq_idx)  # (b, l, h, p)
        else:
            y, ssm = chunked_scan(x, dt, a, b_in, c_out, ssm, seq_idx)
            y = y + x * self.D.to(x.dtype)[:, None]
        y = self.norm(y.flatten(-2), z).to(projected.dtype)  # (b, l, e)
        return y, LayerState(conv=tail, ssm=ssm)

    def _split(self, convolved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cut the convolution's output into x ``(b, l, e)``, and B and C ``(b, l, g, n)``."""
        config = self.config
        shape = (*convolved.shape[:2], config.n_groups, config.d_state)
        if not config.selective:
            b_in, c_out = (weight.to(convolved.dtype).expand(shape) for weight in (self.B, self.C))
            return convolved, b_in, c_out
        x, b_in, c_out = convolved.split([config.d_inner, *2 * [config.n_groups * config.d_state]], dim=-1)
        return x, b_in.view(shape), c_out.view(shape)


class Mamba1Mixer(nn.Module):
    """One Mamba-1 layer: projection, short convolution, selective scan, gate, projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        e, r, n = config.d_inner, config.time_step_rank, config.d_state
        self.in_proj = nn.Linear(config.d_model, 2 * e, bias=False)
        self.conv1d = nn.Conv1d(e, e, config.d_conv, groups=e)
        if config.selective:
            self.x_proj = nn.Linear(e, r + 2 * n, bias=False)
            self.dt_proj = nn.Linear(r, e)
            nn.init.uniform_(self.dt_proj.weight, -(r**-0.5), r**-0.5)
            self.dt_proj.bias.data.copy_(_initial_dt_bias(e))
        else:
            self.B = nn.Parameter(torch.randn(n))
            self.C = nn.Parameter(torch.randn(n))
            self.dt_bias = nn.Parameter(_initial_dt_bias(e))
        self.A_log = nn.Parameter(torch.log(torch.arange(1, n + 1, dtype=torch.float32)).repeat(e, 1))
        self.D = nn.Parameter(torch.ones(e))
        self.out_proj = nn.Linear(e, config.d_model, bias=False)

    def forward(
        self, u: Tensor, state: LayerState | None = None, packing: Packing | None = None
    ) -> tuple[Tensor, LayerState]:
        """Read ``u (b, l, d)`` on from ``state``; return ``(b, l, d)`` and the new state."""
        x, z = F.linear(u, self.in_proj.weight.to(u.dtype)).chunk(2, dim=-1)  # (b, l, e) each
        x, tail = convolve(x, self.conv1d, None if state is None else state.conv, packing)
        steps, b_in, c_out = self._select(x)
        y, ssm = selective_scan(
            x.float(),
            F.softplus(steps),  # (b, l, e)
            -torch.exp(self.A_log.float()),  # (e, n)
            b_in,
            c_out,
            None if state is None else state.ssm,
            None if packing is None else packing.seq_idx,
        )
        y = (y + x.float() * self.D.float()) * F.silu(z.float())  # (b, l, e)
        return F.linear(y.to(u.dtype), self.out_proj.weight.to(u.dtype)), LayerState(conv=tail, ssm=ssm)

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give time steps ``(b, l, e)`` before softplus, and B and C ``(b, l, n)``, all float32."""
        config = self.config
        if not config.selective:
            shape = (*x.shape[:2], -1)
            return self.dt_bias.float().expand(shape), self.B.float().expand(shape), self.C.float().expand(shape)
        low_rank, b_in, c_out = F.linear(x, self.x_proj.weight.to(x.dtype)).split(
            [config.time_step_rank, config.d_state, config.d_state], dim=-1
        )
        steps = F.linear(low_rank, self.dt_proj.weight.to(x.dtype)).float() + self.dt_proj.bias.float()
        return steps, b_in.float(), c_out.float()


def convolve(x: Tensor, conv1d: nn.Conv1d, tail: Tensor | None, packing: Packing | None) -> tuple[Tensor, Tensor]:
    """Convolve ``x (b, l, f)`` causally per channel, then SiLU; also return the last k - 1 inputs ``(b, k - 1, f)``."""
    l, taps = x.shape[1], conv1d.kernel_size[0]
    # (b, k - 1 + l, f)
    padded = F.pad(x, (0, 0, taps - 1, 0)) if tail is None else torch.cat([tail.to(x.dtype), x], dim=1)
    kernel = conv1d.weight[:, 0].to(x.dtype).T.contiguous()  # (k, f)
    mixed = _bias(conv1d).to(x.dtype) + x * kernel[-1]
    for tap in range(taps - 1):
        source = padded[:, tap : tap + l]
        if packing is not None:
            source = source * _reaches(packing.seq_idx, taps - 1 - tap)[..., None].to(x.dtype)
        mixed = mixed + source * kernel[tap]
    return F.silu(mixed), padded[:, l:].clone()  # a view would keep all of the padded row


def _bias(conv1d: nn.Conv1d) -> Tensor:
    assert conv1d.bias is not None  # nn.Conv1d made one
    return conv1d.bias


def _reaches(seq_idx: Tensor, back: int) -> Tensor:
    """Say for each token whether the one ``back`` places before it is of its sequence: ``(b, l)`` to ``(b, l)``."""
    return seq_idx == F.pad(seq_idx, (back, 0), value=-1)[:, : seq_idx.shape[1]]


def _initial_dt_bias(width: int, dt_min: float = 1e-3, dt_max: float = 0.1, floor: float = 1e-4) -> Tensor:
    """Draw time steps log-uniformly between the bounds, and invert softplus (mamba_ssm/modules/mamba2.py)."""
    dt = torch.exp(torch.rand(width) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min)).clamp_min(floor)
    return dt + torch.log(-torch.expm1(-dt))
