"""Triton kernels for the gated norm, ``norm(y * silu(z)) * weight``, and its gradient.

Letters as in ``encoder/mamba.py``; ``m`` counts the tokens of all rows. The gradient reads what the forward pass read
and, of what that computed, the scale of each token. All is float32 in registers. A program has one group of channels of
some tokens.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TOKENS, _REPEATS = 2, 16  # tokens that a program reads at once; how often, in the gradient


def gated_norm(y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Norm ``y (m, e)`` gated by ``z (m, e)``, ``weight (e)`` float32; return ``(m, e)`` like ``y``, and the scales.

    Source: mamba_ssm's ``RMSNormGated(norm_before_gate=False)``. The scales are ``(m, g)`` float32. ``z`` may be a view
    whose channels have no gaps.
    """
    tokens, width = y.shape
    out = torch.empty_like(y)
    scale = weight.new_empty(tokens, groups)
    with torch.cuda.device_of(y):  # Triton starts kernels on the current device
        _forward[-(-tokens // _TOKENS), groups](
            *(y, z, z.stride(0), weight, out, scale, tokens, eps),
            **_constants(width, groups),
        )
    return out, scale


def gated_norm_backward(
    dout: Tensor, y: Tensor, z: Tensor, weight: Tensor, scale: Tensor, dz: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the gradient of ``z`` to ``dz (m, e)``, a view like ``z``; return those of ``y`` and ``weight``."""
    tokens, width = y.shape
    groups = scale.shape[1]
    dy = torch.empty_like(y)
    programs = -(-tokens // (_TOKENS * _REPEATS))
    dweight = weight.new_empty(programs, width)
    with torch.cuda.device_of(y):
        _backward[programs, groups](
            *(dout, y, z, z.stride(0), weight, scale, dy, dz, dz.stride(0), dweight, tokens),
            **_constants(width, groups),
            repeats=_REPEATS,
        )
    return dy, dweight.sum(0)


def _constants(width: int, groups: int) -> dict[str, int]:
    own = width // groups
    return {
        "width": own,
        "groups": groups,
        "read": _TOKENS,
        "block": triton.next_power_of_2(own),
        "num_warps": 4 if own <= 1024 else 8,
    }


@triton.jit
def _forward(
    y: tl.tensor,  # (m, e)
    z: tl.tensor,  # (m, e)
    z_token: tl.tensor,
    weight: tl.tensor,  # (e)
    out: tl.tensor,  # out (m, e)
    scale: tl.tensor,  # out (m, g)
    tokens: tl.tensor,
    eps: tl.tensor,
    width: tl.constexpr,
    groups: tl.constexpr,
    read: tl.constexpr,
    block: tl.constexpr,
) -> None:
    group, channels = tl.program_id(1), tl.arange(0, block)
    token = tl.program_id(0) * read + tl.arange(0, read)
    inside = (token < tokens)[:, None] & (channels < width)[None, :]
    place = token.to(tl.int64)[:, None] * (groups * width) + (group * width + channels)[None, :]
    place_z = token.to(tl.int64)[:, None] * z_token + (group * width + channels)[None, :]
    gate = tl.load(z + place_z, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32) * gate * tl.sigmoid(gate)
    own = tl.rsqrt(tl.sum(value * value, 1) / width + eps)
    factor = tl.load(weight + group * width + channels, mask=channels < width, other=0.0)
    tl.store(out + place, (value * own[:, None] * factor[None, :]).to(out.dtype.element_ty), mask=inside)
    tl.store(scale + token.to(tl.int64) * groups + group, own, mask=token < tokens)


@triton.jit
def _backward(
    dout: tl.tensor,  # (m, e)
    y: tl.tensor,  # (m, e)
    z: tl.tensor,  # (m, e)
    z_token: tl.tensor,
    weight: tl.tensor,  # (e)
    scale: tl.tensor,  # (m, g)
    dy: tl.tensor,  # out (m, e)
    dz: tl.tensor,  # out (m, e)
    dz_token: tl.tensor,
    dweight: tl.tensor,  # out (programs, e)
    tokens: tl.tensor,
    width: tl.constexpr,
    groups: tl.constexpr,
    read: tl.constexpr,
    block: tl.constexpr,
    repeats: tl.constexpr,
) -> None:
    group, channels = tl.program_id(1), tl.arange(0, block)
    column = group * width + channels
    factor = tl.load(weight + column, mask=channels < width, other=0.0)[None, :]
    total = tl.zeros((read, block), tl.float32)
    for repeat in range(repeats):
        token = (tl.program_id(0) * repeats + repeat) * read + tl.arange(0, read)
        inside = (token < tokens)[:, None] & (channels < width)[None, :]
        token_long = token.to(tl.int64)
        place = token_long[:, None] * (groups * width) + column[None, :]
        gate = tl.load(z + token_long[:, None] * z_token + column[None, :], mask=inside, other=0.0).to(tl.float32)
        value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.load(dout + place, mask=inside, other=0.0).to(tl.float32)
        own = tl.load(scale + token_long * groups + group, mask=token < tokens, other=0.0)[:, None]
        opening = tl.sigmoid(gate)
        silu = gate * opening
        normed = value * silu * own
        total += gradient * normed
        gradient *= factor
        gradient = own * (gradient - normed * (tl.sum(gradient * normed, 1) / width)[:, None])
        tl.store(dy + place, (gradient * silu).to(dy.dtype.element_ty), mask=inside)
        gradient *= value * opening * (1 + gate * (1 - opening))
        place_dz = token_long[:, None] * dz_token + column[None, :]
        tl.store(dz + place_dz, gradient.to(dz.dtype.element_ty), mask=inside)
    tl.store(dweight + tl.program_id(0).to(tl.int64) * groups * width + column, tl.sum(total, 0), mask=channels < width)
