"""Triton kernel: what stands between in_proj and the scan. Letters as in ``encoder/mamba.py``; one row.

The causal convolution with SiLU; in Mamba-2 also the time steps through softplus, heads first, as the scan reads them,
in one reading of in_proj's output. A program walks along some runs of tokens, with the last inputs of its channels in
registers, so that each is read and converted once. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from encoder.kernels.fused.elementary import read_until, silu, softplus

TAPS = 4  # of the kernel as it is given: fewer stand after zeros


@triton.jit(do_not_specialize=["length"])
def convolve(
    projected: tl.tensor,  # (l, w) of in_proj; only mixed (f) and the time steps (h) are read
    projected_token: tl.tensor,
    kernel: tl.tensor,  # (4, f)
    bias: tl.tensor,  # (f)
    dt_bias: tl.tensor,  # (h) or None
    marks: tl.tensor,  # (l) or None
    tail: tl.tensor,  # (k - 1, f) inputs before the row, or None
    convolved: tl.tensor,  # out (l, f)
    steps: tl.tensor,  # out (h, l), or None, and there is no last column
    after: tl.tensor,  # out (k - 1, f) last inputs
    length: tl.tensor,
    limit: tl.tensor,  # (1) tokens that are read, or None, and all are: time steps behind are zero
    offset: tl.constexpr,  # of mixed in projected
    f: tl.constexpr,
    h: tl.constexpr,
    taps: tl.constexpr,  # k
    run: tl.constexpr,  # tokens of a run, a multiple of four
    runs: tl.constexpr,  # of a program
    block: tl.constexpr,  # channels of a program
    block_h: tl.constexpr,
) -> None:
    """Convolve some channels of some tokens; the programs of the last column give time steps instead."""
    tile, column = tl.program_id(0), tl.program_id(1)
    projected += offset
    if column * block < f:
        channel = column * block + tl.arange(0, block)
        own = channel < f
        w3, w2 = load_weights(kernel, channel, own), load_weights(kernel + f, channel, own)
        w1, w0 = load_weights(kernel + 2 * f, channel, own), load_weights(kernel + 3 * f, channel, own)
        shift = load_weights(bias, channel, own)
        token = tile * run * runs + tl.arange(0, runs) * run
        mark = load_marks(marks, token, length, runs)
        last1 = load_before(
            projected, projected_token, tail, marks, mark, token, 1, length, channel, own, f, taps, runs
        )
        last2 = load_before(
            projected, projected_token, tail, marks, mark, token, 2, length, channel, own, f, taps, runs
        )
        last3 = load_before(
            projected, projected_token, tail, marks, mark, token, 3, length, channel, own, f, taps, runs
        )
        for _ in tl.static_range(0, run, 4):
            # Loads first: none of them is to wait for a store.
            value0 = load_some(projected, projected_token, token, channel, token < length, own)
            value1 = load_some(projected, projected_token, token + 1, channel, token + 1 < length, own)
            value2 = load_some(projected, projected_token, token + 2, channel, token + 2 < length, own)
            value3 = load_some(projected, projected_token, token + 3, channel, token + 3 < length, own)
            mark0, mark1 = load_marks(marks, token, length, runs), load_marks(marks, token + 1, length, runs)
            mark2, mark3 = load_marks(marks, token + 2, length, runs), load_marks(marks, token + 3, length, runs)
            last1, last2, last3 = seen_by(marks, mark0, mark, last1, last2, last3)
            total = shift + value0 * w0 + last1 * w1 + last2 * w2 + last3 * w3
            store_some(convolved, f, token, channel, length, own, silu(total))
            last1, last2, last3 = seen_by(marks, mark1, mark0, value0, last1, last2)
            total = shift + value1 * w0 + last1 * w1 + last2 * w2 + last3 * w3
            store_some(convolved, f, token + 1, channel, length, own, silu(total))
            last1, last2, last3 = seen_by(marks, mark2, mark1, value1, last1, last2)
            total = shift + value2 * w0 + last1 * w1 + last2 * w2 + last3 * w3
            store_some(convolved, f, token + 2, channel, length, own, silu(total))
            last1, last2, last3 = seen_by(marks, mark3, mark2, value2, last1, last2)
            total = shift + value3 * w0 + last1 * w1 + last2 * w2 + last3 * w3
            store_some(convolved, f, token + 3, channel, length, own, silu(total))
            last1, last2, last3, mark = value3, last1, last2, mark3
            token += 4
        if tile == tl.cdiv(length, run * runs) - 1:
            end = read_until(limit, length)
            store_tail(after, projected, projected_token, tail, end, channel, own, f, taps, block)
    elif steps is not None:
        start, end = tile * run * runs, read_until(limit, length)
        store_steps(steps, projected + f, projected_token, dt_bias, start, length, end, h, run * runs, block_h)


@triton.jit
def load_weights(base: tl.tensor, channel: tl.tensor, own: tl.tensor) -> tl.tensor:
    """Load one weight of each channel: ``(1, block)``."""
    return tl.load(base + channel, mask=own, other=0.0)[None, :]


@triton.jit
def load_marks(marks: tl.tensor, token: tl.tensor, length: tl.tensor, runs: tl.constexpr) -> tl.tensor:
    """Load one token's mark of each run."""
    found = tl.zeros((runs,), tl.int32)
    if marks is not None:
        found = tl.load(marks + token, mask=(token >= 0) & (token < length), other=-1)
    return found


@triton.jit
def load_some(
    base: tl.tensor,
    stride: tl.tensor,
    token: tl.tensor,
    channel: tl.tensor,
    seen: tl.tensor,
    own: tl.tensor,
) -> tl.tensor:
    """Load some channels of some tokens: float32, zeros where not ``seen``."""
    places = base + token.to(tl.int64)[:, None] * stride + channel[None, :]
    return tl.load(places, mask=seen[:, None] & own[None, :], other=0.0).to(tl.float32)


@triton.jit
def store_some(
    base: tl.tensor,
    stride: tl.tensor,
    token: tl.tensor,
    channel: tl.tensor,
    length: tl.tensor,
    own: tl.tensor,
    value: tl.tensor,
) -> None:
    """Store some channels of some tokens."""
    places = base + token.to(tl.int64)[:, None] * stride + channel[None, :]
    tl.store(places, value.to(base.dtype.element_ty), mask=(token < length)[:, None] & own[None, :])


@triton.jit
def load_before(
    projected: tl.tensor,
    projected_token: tl.tensor,
    tail: tl.tensor,
    marks: tl.tensor,
    mark: tl.tensor,
    first: tl.tensor,
    back: tl.constexpr,
    length: tl.tensor,
    channel: tl.tensor,
    own: tl.tensor,
    f: tl.constexpr,
    taps: tl.constexpr,
    runs: tl.constexpr,
) -> tl.tensor:
    """Load the input ``back`` tokens before each run: zeros where it is another's, before all from the tail."""
    token = first - back
    seen = (token >= 0) & (token < length)
    if marks is not None:
        seen &= load_marks(marks, token, length, runs) == mark
    found = load_some(projected, projected_token, token, channel, seen, own)
    if tail is not None:
        place = token + taps - 1
        found += load_some(tail, f, place, channel, (token < 0) & (place >= 0), own)
    return found


@triton.jit
def seen_by(
    marks: tl.tensor, mark: tl.tensor, mark_before: tl.tensor, last1: tl.tensor, last2: tl.tensor, last3: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Give of the last inputs what the next token reads: nothing where a sequence begins with it."""
    if marks is not None:
        same = (mark == mark_before)[:, None]
        last1, last2, last3 = tl.where(same, last1, 0.0), tl.where(same, last2, 0.0), tl.where(same, last3, 0.0)
    return last1, last2, last3


@triton.jit
def store_tail(
    after: tl.tensor,
    projected: tl.tensor,
    projected_token: tl.tensor,
    tail: tl.tensor,
    end: tl.tensor,
    channel: tl.tensor,
    own: tl.tensor,
    f: tl.constexpr,
    taps: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Store the last inputs, those of the tail among them where the row is shorter than the convolution."""
    for place in tl.static_range(taps - 1):
        token = end - (taps - 1) + place + tl.arange(0, 1)
        value = load_some(projected, projected_token, token, channel, token >= 0, own)
        if tail is not None:
            value += load_some(tail, f, token + taps - 1, channel, token < 0, own)
        tl.store(after + place * f + channel, tl.reshape(value, (block,)), mask=own)


@triton.jit
def store_steps(
    steps: tl.tensor,
    raw: tl.tensor,
    stride: tl.tensor,
    dt_bias: tl.tensor,
    start: tl.tensor,
    length: tl.tensor,
    end: tl.tensor,
    h: tl.constexpr,
    read: tl.constexpr,
    block_h: tl.constexpr,
) -> None:
    """Store the time steps of some tokens, heads first; zero from ``end`` on."""
    token, head = start + tl.arange(0, read), tl.arange(0, block_h)
    value = load_some(raw, stride, token, head, token < length, head < h)
    value = softplus(value + tl.load(dt_bias + head, mask=head < h, other=0.0)[None, :])
    places = steps + head.to(tl.int64)[None, :] * length + token[:, None]
    value = tl.where((token < end)[:, None], value, 0.0)
    tl.store(places, value, mask=(token < length)[:, None] & (head < h)[None, :])
