"""Triton kernels for the short causal convolution with SiLU and its gradient. Letters as in ``encoder/mamba.py``.

Every token is read once, but for the few before a run of tokens: a thread walks along some runs, with the last inputs
of its channels in registers. In the gradient it walks on into the next run, whose outputs its own inputs are in.
Sums are float32. ``x`` and its gradient may be views whose channels have no gaps.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TAPS = 4
_RUN, _RUNS, _BLOCK = 16, 4, 128  # tokens of a run, runs and channels of a program


def convolve(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor | None, seq_idx: Tensor | None) -> Tensor:
    """Convolve ``x (b, l, f)`` with ``weight (f, 4)`` and ``bias (f)`` float32, then SiLU: ``(b, l, f)`` without gaps.

    ``tail (b, 3, f)`` are the inputs before. With ``seq_idx (b, l)`` no token reads another sequence's.
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(x):  # Triton starts kernels on the current device
        _forward[_grid(x)](
            *(x, x.stride(0), x.stride(1), weight.contiguous(), bias, _packed(seq_idx), _packed(tail), out),
            *x.shape[1:],
            run=_RUN,
            runs=_RUNS,
            block=_BLOCK,
            num_warps=4,
        )
    return out


def convolve_backward(
    dout: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    tail: Tensor | None,
    seq_idx: Tensor | None,
    dx: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the gradient of ``x`` to ``dx (b, l, f)``; return those of weight ``(f, 4)``, bias ``(f)`` and tail.

    ``dout (b, l, f)`` is that of what :func:`convolve` returned, without gaps; without a tail its gradient is empty.
    """
    grid = _grid(x)
    sums = weight.new_empty(grid[0], TAPS + 1, x.shape[2])
    dtail = x.new_empty(0) if tail is None else torch.empty(tail.shape, dtype=tail.dtype, device=x.device)
    with torch.cuda.device_of(x):
        _backward[grid](
            *(dout, x, x.stride(0), x.stride(1), weight.contiguous(), bias, _packed(seq_idx), _packed(tail)),
            *(dx, dx.stride(0), dx.stride(1), sums, None if tail is None else dtail),
            *x.shape[1:],
            run=_RUN,
            runs=_RUNS,
            block=_BLOCK,
            num_warps=4,
        )
    total = sums.sum(0)  # a program's own, then summed: atomic additions would come in another order each time
    return total[:TAPS].T.contiguous(), total[TAPS].clone(), dtail


def _grid(x: Tensor) -> tuple[int, int]:
    rows, length, width = x.shape
    return rows * -(-length // (_RUN * _RUNS)), -(-width // _BLOCK)


def _packed(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


@triton.jit
def _place(length: tl.tensor, run: tl.constexpr, runs: tl.constexpr, block: tl.constexpr) -> tl.tensor:
    """Give this program's row, the first token of each of its runs, and its channels."""
    tiles = tl.cdiv(length, run * runs)
    row, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    return (
        row.to(tl.int64),
        tile * run * runs + tl.arange(0, runs) * run,
        tl.program_id(1) * block + tl.arange(0, block),
    )


@triton.jit
def _load(
    base: tl.tensor, stride: tl.tensor, tokens: tl.tensor, length: tl.tensor, channels: tl.tensor, width: tl.tensor
) -> tl.tensor:
    """Load one token of each run, ``(runs, block)`` float32; zeros outside the row."""
    inside = ((tokens >= 0) & (tokens < length))[:, None] & (channels < width)[None, :]
    return tl.load(base + tokens.to(tl.int64)[:, None] * stride + channels[None, :], mask=inside, other=0.0).to(
        tl.float32
    )


@triton.jit
def _load_before(
    x: tl.tensor,
    stride: tl.tensor,
    tail: tl.tensor,
    tokens: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    width: tl.tensor,
    taps: tl.constexpr,
) -> tl.tensor:
    """Load as :func:`_load`, and before the row from its tail."""
    found = _load(x, stride, tokens, length, channels, width)
    if tail is not None:
        found += _load(tail, width, tl.where(tokens < 0, tokens + taps - 1, -1), taps - 1, channels, width)
    return found


@triton.jit
def _load_marks(marks: tl.tensor, tokens: tl.tensor, length: tl.tensor, runs: tl.constexpr) -> tl.tensor:
    found = tl.zeros((runs,), tl.int32)
    if marks is not None:
        found = tl.load(marks + tokens, mask=(tokens >= 0) & (tokens < length), other=-1)
    return found


@triton.jit
def _seen(value: tl.tensor, mark: tl.tensor, own: tl.tensor) -> tl.tensor:
    return tl.where((mark == own)[:, None], value, 0.0)


@triton.jit
def _load_weights(
    weight: tl.tensor, bias: tl.tensor, channels: tl.tensor, width: tl.tensor, taps: tl.constexpr
) -> tl.tensor:
    """Load each tap's weights, and the bias: ``(1, block)``."""
    tl.static_assert(taps == 4)
    inside = channels < width
    places = weight + channels * taps
    w0, w1 = tl.load(places, mask=inside, other=0.0), tl.load(places + 1, mask=inside, other=0.0)
    w2, w3 = tl.load(places + 2, mask=inside, other=0.0), tl.load(places + 3, mask=inside, other=0.0)
    shift = tl.load(bias + channels, mask=inside, other=0.0)
    return w0[None, :], w1[None, :], w2[None, :], w3[None, :], shift[None, :]


@triton.jit
def _forward(
    x: tl.tensor,  # (b, l, f)
    x_row: tl.tensor,
    x_token: tl.tensor,
    weight: tl.tensor,  # (f, k)
    bias: tl.tensor,  # (f)
    marks: tl.tensor,  # (b, l) or None
    tail: tl.tensor,  # (b, k - 1, f) or None
    out: tl.tensor,  # out (b, l, f)
    length: tl.tensor,
    width: tl.tensor,
    run: tl.constexpr,
    runs: tl.constexpr,
    block: tl.constexpr,
    taps: tl.constexpr = TAPS,
) -> None:
    row, first, channels = _place(length, run, runs, block)
    x += row * x_row
    out += row * length * width
    if marks is not None:
        marks += row * length
    if tail is not None:
        tail += row * (taps - 1) * width
    w0, w1, w2, w3, shift = _load_weights(weight, bias, channels, width, taps)
    x0 = _load_before(x, x_token, tail, first - 3, length, channels, width, taps)
    x1 = _load_before(x, x_token, tail, first - 2, length, channels, width, taps)
    x2 = _load_before(x, x_token, tail, first - 1, length, channels, width, taps)
    m0, m1 = _load_marks(marks, first - 3, length, runs), _load_marks(marks, first - 2, length, runs)
    m2 = _load_marks(marks, first - 1, length, runs)
    for step in tl.static_range(run):
        tokens = first + step
        x3, m3 = _load(x, x_token, tokens, length, channels, width), _load_marks(marks, tokens, length, runs)
        mixed = shift + w3 * x3 + w2 * _seen(x2, m2, m3) + w1 * _seen(x1, m1, m3) + w0 * _seen(x0, m0, m3)
        places = out + tokens.to(tl.int64)[:, None] * width + channels[None, :]
        inside = (tokens < length)[:, None] & (channels < width)[None, :]
        tl.store(places, (mixed * tl.sigmoid(mixed)).to(out.dtype.element_ty), mask=inside)
        x0, x1, x2 = x1, x2, x3
        m0, m1, m2 = m1, m2, m3


@triton.jit
def _backward(
    dout: tl.tensor,  # (b, l, f)
    x: tl.tensor,  # (b, l, f)
    x_row: tl.tensor,
    x_token: tl.tensor,
    weight: tl.tensor,  # (f, k)
    bias: tl.tensor,  # (f)
    marks: tl.tensor,  # (b, l) or None
    tail: tl.tensor,  # (b, k - 1, f) or None
    dx: tl.tensor,  # out (b, l, f)
    dx_row: tl.tensor,
    dx_token: tl.tensor,
    sums: tl.tensor,  # out (programs, k + 1, f): gradients of weight and bias
    dtail: tl.tensor,  # out (b, k - 1, f) or None
    length: tl.tensor,
    width: tl.tensor,
    run: tl.constexpr,
    runs: tl.constexpr,
    block: tl.constexpr,
    taps: tl.constexpr = TAPS,
) -> None:
    row, first, channels = _place(length, run, runs, block)
    x += row * x_row
    dout += row * length * width
    dx += row * dx_row
    if marks is not None:
        marks += row * length
    if tail is not None:
        tail += row * (taps - 1) * width
        dtail += row * (taps - 1) * width
    w0, w1, w2, w3, shift = _load_weights(weight, bias, channels, width, taps)
    x0 = _load_before(x, x_token, tail, first - 3, length, channels, width, taps)
    x1 = _load_before(x, x_token, tail, first - 2, length, channels, width, taps)
    x2 = _load_before(x, x_token, tail, first - 1, length, channels, width, taps)
    m0, m1 = _load_marks(marks, first - 3, length, runs), _load_marks(marks, first - 2, length, runs)
    m2 = _load_marks(marks, first - 1, length, runs)
    # Gradients before SiLU. Those of tokens before the run are left at zero: they count for inputs of the run before.
    zero = tl.zeros((runs, block), tl.float32)
    g0, g1, g2 = zero, zero, zero
    dw0, dw1, dw2, dw3, dshift = zero, zero, zero, zero, zero
    for step in tl.static_range(run + taps - 1):
        tokens = first + step
        x3, m3 = _load(x, x_token, tokens, length, channels, width), _load_marks(marks, tokens, length, runs)
        s0, s1, s2 = _seen(x0, m0, m3), _seen(x1, m1, m3), _seen(x2, m2, m3)
        mixed = shift + w3 * x3 + w2 * s2 + w1 * s1 + w0 * s0
        gate = tl.sigmoid(mixed)
        g3 = _load(dout, width, tokens, length, channels, width) * gate * (1 + mixed * (1 - gate))
        if step < run:
            dw0, dw1, dw2, dw3, dshift = dw0 + g3 * s0, dw1 + g3 * s1, dw2 + g3 * s2, dw3 + g3 * x3, dshift + g3
        # Of the token three before, whose last reader this one is.
        found = w3 * g0 + w2 * _seen(g1, m1, m0) + w1 * _seen(g2, m2, m0) + w0 * _seen(g3, m3, m0)
        if step >= taps - 1:
            inside = (tokens - 3 < length)[:, None] & (channels < width)[None, :]
            places = dx + (tokens - 3).to(tl.int64)[:, None] * dx_token + channels[None, :]
            tl.store(places, found.to(dx.dtype.element_ty), mask=inside)
        elif dtail is not None:
            inside = (first == 0)[:, None] & (channels < width)[None, :]
            places = dtail + tokens[:, None] * width + channels[None, :]
            tl.store(places, found.to(dtail.dtype.element_ty), mask=inside)
        x0, x1, x2 = x1, x2, x3
        m0, m1, m2 = m1, m2, m3
        g0, g1, g2 = g1, g2, g3
    sums += tl.program_id(0).to(tl.int64) * (taps + 1) * width + channels
    tl.store(sums, tl.sum(dw0, 0), mask=channels < width)
    tl.store(sums + width, tl.sum(dw1, 0), mask=channels < width)
    tl.store(sums + 2 * width, tl.sum(dw2, 0), mask=channels < width)
    tl.store(sums + 3 * width, tl.sum(dw3, 0), mask=channels < width)
    tl.store(sums + 4 * width, tl.sum(dshift, 0), mask=channels < width)
