"""A Mamba-2 block for inference on a CPU: few operations, each over much memory once. Letters: ``encoder/mamba.py``.

Beside the factored scan: weights are kept in the dtype of the products; the weights of both norms are folded into the
projections that follow them, and the gated norm's scale, one number per token, is applied after ``out_proj``, where
rows are half as wide; the convolution of long inputs is oneDNN's depthwise one, which reads channels last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder.kernels.factored_scan import factored_scan
from encoder.kernels.short_texts import ShortTextsLayer
from encoder.mamba import Block
from encoder.mixers import LayerState, Mamba2Mixer
from encoder.packing import Packing
from encoder.scan import chunked_scan

_USUAL_ROWS = 1024
_ONEDNN_TOKENS_MIN = 128  # below, setting oneDNN up costs more than a few sums over shifted rows


class CpuBlock(nn.Module):
    """Computes what :class:`encoder.mamba.Block` does with a selective, one-directional Mamba-2 mixer."""

    def __init__(self, block: Block, dtype: torch.dtype, *, half_weights: bool = False) -> None:
        super().__init__()
        mixer = block.mixer
        assert isinstance(mixer, Mamba2Mixer)
        config = mixer.config
        self.config = config
        self.dtype = dtype
        self.conv_width = mixer.conv_width
        in_proj = mixer.in_proj.weight.float() * block.norm.weight.float()  # (e + f + h, d)
        out_proj = mixer.out_proj.weight.float() * mixer.norm.weight.float()  # (d, e)
        assert mixer.conv1d.bias is not None  # nn.Conv1d made one
        for name, value in {
            "kernel": mixer.conv1d.weight[:, 0].T.to(dtype).contiguous(),  # (k, f)
            "conv_bias": mixer.conv1d.bias.to(dtype),  # (f)
            "dt_bias": mixer.dt_bias.float(),  # (h)
            "a": -torch.exp(mixer.A_log.float()),  # (h)
            "skip": mixer.D.to(dtype)[:, None],  # (h, 1)
        }.items():
            self.register_buffer(name, value.contiguous(), persistent=False)
        depthwise = self.kernel.T[:, None, None].contiguous(memory_format=torch.channels_last)
        self.register_buffer("depthwise", depthwise, persistent=False)  # (f, 1, 1, k)
        self.in_proj = linear(in_proj.to(dtype), half=half_weights)
        self.out_proj = linear(out_proj.to(dtype), half=half_weights)
        self.short_texts = None
        if config.n_groups == 1:
            self.short_texts = ShortTextsLayer.of(
                config,
                _in_float32(self.in_proj, dtype),
                _in_float32(self.out_proj, dtype),
                kernel=self.kernel.float(),
                conv_bias=self.conv_bias.float(),
                dt_bias=self.dt_bias,
                a=self.a,
                skip=self.skip.float(),
            )

    kernel: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
    a: Tensor
    skip: Tensor
    depthwise: Tensor

    def forward(
        self,
        residual: Tensor,
        dtype: torch.dtype,
        state: LayerState | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, LayerState | None]:
        """Read ``residual (b, l, d)`` float32 on from ``state``; return the new residual and state (none if packed)."""
        assert dtype == self.dtype
        if self.short_texts is not None and packing is not None and packing.padded is not None:
            return self.short_texts.read(residual[0], packing.padded)[None], None
        config = self.config
        u = (residual * _inverse_rms(residual, config.norm_eps)).to(dtype)  # (b, l, d)
        gate, mixed, steps = self.in_proj(u).tensor_split(  # (b, l, e), (b, l, f), (b, l, h)
            [config.d_inner, config.d_inner + self.conv_width], dim=-1
        )
        convolved = self._convolve(mixed, None if state is None else state.conv, packing)
        x, b_in, c_out = convolved.split([config.d_inner, *2 * [config.n_groups * config.d_state]], dim=-1)
        x = x.unflatten(-1, (config.n_heads, -1))  # (b, l, h, p)
        y, ssm = self._scan(
            x,
            F.softplus(steps.float().add_(self.dt_bias)),  # (b, l, h)
            b_in.unflatten(-1, (config.n_groups, -1)),  # (b, l, g, n)
            c_out.unflatten(-1, (config.n_groups, -1)),  # (b, l, g, n)
            None if state is None else state.ssm,
            packing,
        )
        y = y.addcmul_(x, self.skip).flatten(-2)  # (b, l, e)
        y = y.mul_(F.silu(gate, inplace=True))
        if config.n_groups > 1:
            grouped = y.unflatten(-1, (config.n_groups, -1))
            y = (grouped * _inverse_rms(grouped, config.norm_eps).to(dtype)).flatten(-2)
            out = self.out_proj(y).float()
        else:
            out = self.out_proj(y).float().mul_(_inverse_rms(y, config.norm_eps))
        after = None if packing is not None or ssm is None else LayerState(conv=self._tail(mixed, state), ssm=ssm)
        return out.add_(residual), after

    def _scan(
        self,
        x: Tensor,
        dt: Tensor,
        b_in: Tensor,
        c_out: Tensor,
        state: Tensor | None,
        packing: Packing | None,
    ) -> tuple[Tensor, Tensor | None]:
        seq_idx = packing.seq_idx if packing is not None and len(packing.lengths) > 1 else None
        result = factored_scan(x, dt, self.a, b_in, c_out, state, seq_idx, keep_state=packing is None)
        return result or chunked_scan(x, dt, self.a, b_in, c_out, state, seq_idx)

    def _convolve(self, mixed: Tensor, tail: Tensor | None, packing: Packing | None) -> Tensor:
        """Convolve ``(b, l, f)`` causally per channel, then SiLU."""
        l, taps = mixed.shape[1], len(self.kernel)
        if l < _ONEDNN_TOKENS_MIN:
            # (b, k - 1 + l, f)
            padded = F.pad(mixed, (0, 0, taps - 1, 0)) if tail is None else torch.cat([tail.to(mixed.dtype), mixed], 1)
            result = torch.addcmul(self.conv_bias, mixed, self.kernel[-1])
            for tap in range(taps - 1):
                result.addcmul_(padded[:, tap : tap + l], self.kernel[tap])
        else:
            image = mixed.transpose(1, 2)[:, :, None]  # (b, f, 1, l), channels last in memory
            convolved = F.conv2d(image, self.depthwise, self.conv_bias, padding=(0, taps - 1), groups=self.conv_width)
            result = convolved[:, :, 0, :l].transpose(1, 2)  # (b, l, f)
            if tail is not None:
                near = torch.cat([tail.to(mixed.dtype), mixed[:, : taps - 1]], dim=1).unfold(1, taps, 1)
                result[:, : taps - 1] = self._sum_taps(near.transpose(2, 3))
        if packing is not None and len(packing.edges):
            sources = mixed[0, packing.sources] * packing.inside[..., None].to(mixed.dtype)  # (m, k, f)
            result[0, packing.edges] = self._sum_taps(sources)
        return F.silu(result, inplace=True)

    def _sum_taps(self, sources: Tensor) -> Tensor:
        """Convolve at single places, from their sources ``(..., k, f)``."""
        return (sources * self.kernel).sum(-2) + self.conv_bias

    def _tail(self, mixed: Tensor, state: LayerState | None) -> Tensor:
        """Give the last k - 1 inputs of the convolution, those of the state before among them if need be."""
        kept = len(self.kernel) - 1
        if mixed.shape[1] >= kept:
            return mixed[:, -kept:].clone()
        before = mixed.new_zeros(len(mixed), kept, self.conv_width) if state is None else state.conv.to(mixed.dtype)
        return torch.cat([before, mixed], dim=1)[:, -kept:]


def linear(weight: Tensor, *, half: bool = False) -> Callable[[Tensor], Tensor]:
    """Give the function that multiplies ``(..., in)`` by ``weight (out, in)``, laid out once as its library reads it.

    Otherwise oneDNN lays a bfloat16 weight out anew in every call, which for a short query is a third of the time. The
    operators are those that torch.compile emits for a linear layer on a CPU. With ``half`` a float32 weight is kept in
    float16 by FBGEMM, which multiplies in float32: a short query reads every weight once, and half the bytes.
    """
    if half and weight.dtype == torch.float32 and multiplies_half_weights():
        packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), None)
        return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)
    operators = torch.ops.mkldnn
    if weight.dtype != torch.bfloat16 or not hasattr(operators, "_linear_pointwise"):
        return partial(F.linear, weight=weight.contiguous())
    laid_out = operators._reorder_linear_weight(weight.contiguous(), _USUAL_ROWS)
    return lambda x: operators._linear_pointwise(x, laid_out, None, "none", [], "")


def _in_float32(project: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Let a projection that multiplies in ``dtype`` take and give float32."""
    return project if dtype == torch.float32 else lambda x: project(x.to(dtype)).float()


def multiplies_half_weights() -> bool:
    """Say whether torch has FBGEMM here, which multiplies float32 by weights in float16."""
    return torch.backends.quantized.engine in ("x86", "fbgemm")


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """Give one over the root mean square of each row of ``(..., width)``: ``(..., 1)`` float32."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    inverse: Tensor = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return inverse
