"""What several Triton kernels have in common; elementary functions in as few instructions as the device has for them.

These are of the device's approximate kind, good to 11 bits or more, and meant for what is next rounded to the 8 of a
bfloat16.
Triton's interpreter knows no instructions, and computes them as they are written.
"""

from __future__ import annotations

import triton
import triton.language as tl

_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def exp2(x: tl.tensor) -> tl.tensor:
    """Give 2 to the power of float32 ``x``; what is smaller than any normal number is zero."""
    if _INTERPRETED:
        return tl.exp2(x)
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def silu(x: tl.tensor) -> tl.tensor:
    """Give ``x sigmoid(x)`` of float32 ``x``, which is ``h + h tanh(h)`` with ``h = x / 2``."""
    half = 0.5 * x
    if _INTERPRETED:
        return x * tl.sigmoid(x)
    bent = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [half], dtype=tl.float32, is_pure=True, pack=1)
    return half + half * bent


@triton.jit
def softplus(x: tl.tensor) -> tl.tensor:
    """Give log(1 + exp(x)) of float32 ``x``, by its series where the sum with 1 would round too much of it away."""
    grown = exp2(tl.minimum(x * 1.4426950408889634, 30.0))
    near = grown * (1.0 + grown * (-0.5 + grown * (0.33333333 - 0.25 * grown)))
    return tl.maximum(tl.where(grown < 0.0625, near, log(1.0 + grown)), x)


@triton.jit
def log(x: tl.tensor) -> tl.tensor:
    """Give the natural logarithm of normal, positive float32 ``x``."""
    if _INTERPRETED:
        return tl.log(x)
    power = tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    return power * 0.6931471805599453


@triton.jit
def read_until(limit: tl.tensor, end: tl.tensor) -> tl.tensor:
    """Say where tokens end that states know: at ``limit (1)``, unless that is None or ``end`` is before it."""
    if limit is not None:
        end = tl.minimum(end, tl.load(limit))
    return end
