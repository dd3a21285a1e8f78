"""Triton kernels: the states before segments that begin within a sequence. Letters: ``encoder/scan.py``; one row."""

from __future__ import annotations

import triton
import triton.language as tl

from encoder.kernels.fused.elementary import exp2
from encoder.kernels.fused.scan import FROM_START, TO_END, load_term
from encoder.kernels.training_scan_kernels import multiply_add


@triton.jit(do_not_specialize=["length"], do_not_specialize_on_alignment=["bounds", "carried", "order"])
def segment_states(
    values_of: tl.tensor,  # convolved (l, f) in tiles (q, p): x (h, p)
    keys_of: tl.tensor,  # the same in tiles (q, n): B (g, n)
    terms: tl.tensor,  # (h, 4, l) of chunk_terms
    bounds: tl.tensor,  # (s + 1)
    carried: tl.tensor,  # (s + 1): 1 where a segment reads on within a sequence
    order: tl.tensor,  # (s): segments, as they are read
    added: tl.tensor,  # out (s, h, p, n)
    decays: tl.tensor,  # out (s, h)
    length: tl.tensor,
    heads: tl.constexpr,
    per_group: tl.constexpr,
    q: tl.constexpr,
    p: tl.constexpr,
    n: tl.constexpr,
) -> None:
    """Read each segment from a state of zero where the next reads on; give the state after it, and its decay."""
    segment, head = tl.load(order + tl.program_id(0) // heads), tl.program_id(0) % heads
    if tl.load(carried + segment + 1) == 0:
        return
    terms += 4 * head.to(tl.int64) * length
    first, end = tl.load(bounds + segment), tl.load(bounds + segment + 1)
    state = tl.zeros((n, p), tl.float32)
    decay = tl.full((), 1.0, tl.float32)
    for chunk in range(tl.cdiv(end - first, q)):
        start = first + chunk * q
        token = start + tl.arange(0, q)
        key = keys_of.load([start, heads * p + head // per_group * n])
        values = values_of.load([start, head * p])
        update = (values * load_term(terms, TO_END, length, token, end, 0.0)[:, None]).to(values.dtype)
        remains = tl.load(terms + FROM_START * length + tl.minimum(start + q, end) - 1)
        state = multiply_add(tl.trans(key), update, state * remains)
        decay *= remains
    place = (segment * heads + head).to(tl.int64)
    tl.store(added + place * p * n + tl.arange(0, n)[:, None] + tl.arange(0, p)[None, :] * n, state)
    tl.store(decays + place, decay)


@triton.jit
def then(
    decay: tl.tensor, added: tl.tensor, next_decay: tl.tensor, next_added: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """Give decay and addition of two segments, one after the other."""
    return decay * next_decay, added * next_decay + next_added


@triton.jit(do_not_specialize=["segments"], do_not_specialize_on_alignment=["carried"])
def carry_states(
    added: tl.tensor,  # (s, h, p, n)
    decays: tl.tensor,  # (s, h)
    rates: tl.tensor,  # (h, p, n) whose powers of two decay for times that ``decays`` has, or None
    carried: tl.tensor,  # (s + 1)
    first: tl.tensor,  # (h, p, n) or None
    before: tl.tensor,  # out (s, h, p, n)
    segments: tl.tensor,
    heads: tl.constexpr,
    size: tl.constexpr,  # p * n
    read: tl.constexpr,  # segments that are read at once
    block: tl.constexpr,
) -> None:
    """Give the states before all segments, from what each adds."""
    head = tl.program_id(0)
    inside = tl.program_id(1) * block + tl.arange(0, block)
    own = head.to(tl.int64) * size + inside
    state = tl.zeros((block,), tl.float32)
    if first is not None:
        state += tl.load(first + own)
    tl.store(before + own, state)
    order = tl.arange(0, read)
    for start in range(0, segments, read):
        segment = start + order
        # What is added to no other segment was not written, and may be anything.
        follows = tl.load(carried + segment + 1, mask=segment + 1 < segments, other=0) != 0
        decay = tl.load(decays + segment.to(tl.int64) * heads + head, mask=follows, other=0.0)
        places = segment.to(tl.int64)[:, None] * (heads * size) + own[None, :]
        addition = tl.load(added + places, mask=follows[:, None] & (own >= 0)[None, :], other=0.0)
        decay = tl.broadcast_to(decay[:, None], (read, block))
        if rates is not None:
            decay = tl.where(follows[:, None], exp2(decay * tl.load(rates + own)[None, :]), 0.0)
        decay, addition = tl.associative_scan((decay, addition), 0, then)
        after = decay * state[None, :] + addition
        tl.store(before + places + heads * size, after, mask=(segment + 1 < segments)[:, None] & (own >= 0)[None, :])
        state = tl.sum(tl.where((order == read - 1)[:, None], after, 0.0), 0)
