"""Triton kernels: what stands before each layer's in_proj, and the first's. Letters: ``encoder/mamba.py``; one row.

The gated norm's scale, one number a token, is applied after out_proj, where rows are half as wide. With a whole row of
the residual at hand, the next layer's norm costs nothing more: its weight is a part of in_proj's.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["length"], do_not_specialize_on_alignment=["ids"])
def begin_residual(
    embedding: tl.tensor,  # (v, d)
    ids: tl.tensor,  # (l)
    residual: tl.tensor,  # out (l, d)
    normed: tl.tensor,  # out (l, d): what in_proj reads
    length: tl.tensor,
    eps: tl.constexpr,
    spread: tl.constexpr,  # what the normed rows are multiplied by
    d: tl.constexpr,
    read: tl.constexpr,  # tokens of a program
    block: tl.constexpr,
) -> None:
    """Begin the residual of some tokens with their embeddings, and norm it for the first layer."""
    token = tl.program_id(0) * read + tl.arange(0, read)
    channel = tl.arange(0, block)
    inside = (token < length)[:, None] & (channel < d)[None, :]
    number = tl.load(ids + token, mask=token < length, other=0).to(tl.int64)
    value = tl.load(embedding + number[:, None] * d + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    places = token.to(tl.int64)[:, None] * d + channel[None, :]
    store_normed(value, residual, normed, places, inside, eps, spread, d)


@triton.jit(do_not_specialize=["length"])
def add_to_residual(
    residual: tl.tensor,  # (l, d); the sum takes its place
    out: tl.tensor,  # (l, d) of out_proj, not yet scaled
    squares: tl.tensor,  # (h, l) whose sums the gated norm's scale follows from, or None: out is scaled
    normed: tl.tensor,  # out (l, d): what in_proj reads
    length: tl.tensor,
    inner_eps: tl.tensor,  # float32: of the gated norm, as ``squares`` are scaled
    inner: tl.constexpr,  # e
    eps: tl.constexpr,
    spread: tl.constexpr,  # what the normed rows are multiplied by
    d: tl.constexpr,
    h: tl.constexpr,
    read: tl.constexpr,  # tokens of a program
    block: tl.constexpr,
    block_h: tl.constexpr,
) -> None:
    """Add a layer's output to the residual of some tokens, and norm it for the next layer."""
    token = tl.program_id(0) * read + tl.arange(0, read)
    channel = tl.arange(0, block)
    inside = (token < length)[:, None] & (channel < d)[None, :]
    places = token.to(tl.int64)[:, None] * d + channel[None, :]
    added = tl.load(out + places, mask=inside, other=0.0).to(tl.float32)
    if squares is not None:
        head = tl.arange(0, block_h)
        own = (head < h)[:, None] & (token < length)[None, :]
        parts = tl.load(squares + head.to(tl.int64)[:, None] * length + token[None, :], mask=own, other=0.0)
        added *= tl.rsqrt(tl.sum(parts, 0) / inner + inner_eps)[:, None]
    value = tl.load(residual + places, mask=inside, other=0.0).to(tl.float32) + added
    store_normed(value, residual, normed, places, inside, eps, spread, d)


@triton.jit
def store_normed(
    value: tl.tensor,  # float32, rows of the residual
    residual: tl.tensor,  # out
    normed: tl.tensor,  # out
    places: tl.tensor,
    inside: tl.tensor,
    eps: tl.constexpr,
    spread: tl.constexpr,  # what the normed rows are multiplied by
    d: tl.constexpr,
) -> None:
    """Store rows of the residual, as they are and normed for the next layer."""
    tl.store(residual + places, value.to(residual.dtype.element_ty), mask=inside)
    value *= (tl.rsqrt(tl.sum(value * value, 1) / d + eps) * spread)[:, None]
    tl.store(normed + places, value.to(normed.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length"])
def scale_groups(
    y: tl.tensor,  # (l, e), scaled in place
    squares: tl.tensor,  # (h, l)
    length: tl.tensor,
    eps: tl.constexpr,
    width: tl.constexpr,  # channels of a group, e / g
    groups: tl.constexpr,
    per_group: tl.constexpr,  # heads of a group
    read: tl.constexpr,
    block: tl.constexpr,
    block_h: tl.constexpr,
) -> None:
    """Apply the gated norm's scales where a token has several, one for each group of heads: out_proj mixes groups."""
    group = tl.program_id(1)
    token = tl.program_id(0) * read + tl.arange(0, read)
    head, channel = tl.arange(0, block_h), tl.arange(0, block)
    own = (head < per_group)[:, None] & (token < length)[None, :]
    place = (group * per_group + head).to(tl.int64)[:, None] * length + token[None, :]
    factor = tl.rsqrt(tl.sum(tl.load(squares + place, mask=own, other=0.0), 0) / width + eps)
    inside = (token < length)[:, None] & (channel < width)[None, :]
    places = y + token.to(tl.int64)[:, None] * (groups * width) + group * width + channel[None, :]
    value = tl.load(places, mask=inside, other=0.0).to(tl.float32) * factor[:, None]
    tl.store(places, value.to(y.dtype.element_ty), mask=inside)
