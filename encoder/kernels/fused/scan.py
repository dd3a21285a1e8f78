"""Triton kernels: the scan of Mamba-2 for inference, with gate and skip. Letters as in ``encoder/scan.py``; one row.

A program reads one head of one segment, chunk by chunk, with the state in registers: chunk state, state passing and
chunk scan are one pass over the input. What the heads of a group share, and the decays, come from ``chunk_terms``.
Segments begin where sequences do, as far as they can (``encoder/kernels/fused/cuts.py``); where one begins within a
sequence, the state there is found first, by the kernels of ``encoder/kernels/fused/carrying.py``.

Sources: Dao and Gu 2024 (arXiv 2405.21060), section 6; the recurrence of the chunk's first state as in
``encoder/kernels/training_scan_kernels.py``. Sums and decays are float32, decays as powers of two. Chunks are counted
from a segment's start. Inside a kernel the state is ``(n, p)``, so that no product needs it transposed from registers;
before and after, it is ``(p, n)``. Inputs are tensor descriptors: what lies past the row reads as zero, and what lies
past a segment's end is another's, whose time steps here are zero.
"""

from __future__ import annotations

import triton
import triton.language as tl

from encoder.kernels.fused.elementary import exp2, silu
from encoder.kernels.training_scan_kernels import multiply, multiply_add

# Kinds of what chunk_terms gives for each token and head, in its order.
UNTIL, COLUMN, FROM_START, TO_END = (tl.constexpr(kind) for kind in range(4))
_STEP_MIN = tl.constexpr(1e-37)  # of which a power is found
NOTHING = tl.constexpr(-1e30)  # a power of two that is zero
WEIGHT_POWER_MAX = tl.constexpr(100.0)  # of what is read: 2 ** 100 is beyond any; of what is not: finite, times zero


@triton.jit
def load_term(
    terms: tl.tensor,  # of one head: (4, l)
    kind: tl.constexpr,
    length: tl.tensor,
    token: tl.tensor,
    end: tl.tensor,
    other: tl.constexpr,
) -> tl.tensor:
    """Load one kind of term for a chunk's tokens; ``other`` past a segment's end."""
    return tl.load(terms + kind * length + token, mask=token < end, other=other)


@triton.jit(do_not_specialize=["length"], do_not_specialize_on_alignment=["bounds"])
def chunk_terms(
    convolved: tl.tensor,  # (l, f) in tiles (q, n): x (h, p), B (g, n), C (g, n)
    steps: tl.tensor,  # (h, l)
    rates: tl.tensor,  # (h): A, as powers of two
    marks: tl.tensor,  # (l) or None
    bounds: tl.tensor,  # (s + 1)
    scores: tl.tensor,  # out (l, g, q)
    terms: tl.tensor,  # out (h, 4, l)
    length: tl.tensor,
    heads: tl.constexpr,
    per_group: tl.constexpr,
    q: tl.constexpr,
    p: tl.constexpr,
    n: tl.constexpr,
    block_h: tl.constexpr,
) -> None:
    """Give what the heads of a group share within a chunk, ``C[i] . B[j]``, zero where token i does not read j.

    And for each head four terms of each token. Its decay from the chunk's start, as a power of two; the same less the
    time step's power, for what reads the token; as numbers, the decay from the chunk's start, zero for tokens of
    another sequence than the token before it, and the decay to its end times the time step, zero for those of another
    than its last. The third of the last token is then what remains of the state.
    """
    segment, chunk, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    groups: tl.constexpr = heads // per_group
    start, end = tl.load(bounds + segment) + chunk * q, tl.load(bounds + segment + 1)
    if start >= end:
        return
    key = convolved.load([start, heads * p + group * n])
    query = convolved.load([start, heads * p + (groups + group) * n])
    order = tl.arange(0, q)
    token = start + order
    inside = token < end
    reads = order[:, None] >= order[None, :]
    head = tl.arange(0, block_h)
    own = (head < per_group)[:, None] & inside[None, :]
    rate = tl.load(rates + group * per_group + head, mask=head < per_group, other=0.0)
    row = (group * per_group + head).to(tl.int64)[:, None] * length
    step = tl.load(steps + row + token[None, :], mask=own, other=0.0)
    power = step * rate[:, None]
    until = tl.cumsum(power, 1)
    from_start, to_end = tl.exp2(until), tl.exp2(tl.sum(power, 1)[:, None] - until) * step
    if marks is not None:
        mark = tl.load(marks + token, mask=inside, other=-1)
        reads &= mark[:, None] == mark[None, :]
        before = tl.load(marks + tl.maximum(start - 1, 0))  # the first state belongs to the first token's sequence
        after = tl.load(marks + tl.minimum(start + q, end) - 1)
        from_start = tl.where((mark == before)[None, :], from_start, 0.0)
        to_end = tl.where((mark == after)[None, :], to_end, 0.0)
    found = tl.where(reads, multiply(query, tl.trans(key)), 0.0)
    places = scores + token.to(tl.int64)[:, None] * (groups * q) + group * q + order[None, :]
    tl.store(places, found.to(scores.dtype.element_ty), mask=inside[:, None])
    places = terms + 4 * row + token[None, :]
    tl.store(places + UNTIL * length, until, mask=own)
    tl.store(places + COLUMN * length, until - tl.log2(tl.maximum(step, _STEP_MIN)), mask=own)
    tl.store(places + FROM_START * length, from_start, mask=own)
    tl.store(places + TO_END * length, to_end, mask=own)


@triton.jit(do_not_specialize=["length", "segments"], do_not_specialize_on_alignment=["bounds", "order"])
def scan(
    values_of: tl.tensor,  # convolved (l, f) in tiles (q, p): x (h, p)
    keys_of: tl.tensor,  # the same in tiles (q, n): B and C (g, n)
    gates_of: tl.tensor,  # (l, w) in tiles (q, p), z (h, p) first, or None
    scores_of: tl.tensor,  # (l, g q) in tiles (q, q)
    terms: tl.tensor,  # (h, 4, l)
    skip: tl.tensor,  # (h): D
    bounds: tl.tensor,  # (s + 1)
    order: tl.tensor,  # (s): segments, as they are read
    before: tl.tensor,  # (s, h, p, n) or None
    y: tl.tensor,  # out (l, h, p)
    squares: tl.tensor,  # out (h, l), or None: what each head adds to the sum of squares of the gated norm
    last: tl.tensor,  # out (h, p, n)
    length: tl.tensor,
    segments: tl.tensor,
    power: tl.tensor,  # float32: y is multiplied by 2 ** power, which is to be a whole number
    heads: tl.constexpr,
    per_group: tl.constexpr,
    q: tl.constexpr,
    p: tl.constexpr,
    n: tl.constexpr,
) -> None:
    """Scan: ``y[i] = exp(until[i]) C[i] S + sum over j <= i of exp(until[i] - until[j]) (C[i] . B[j]) dt[j] x[j]``.

    Plus ``d x``, times ``silu(z)`` where there are gates. ``until`` is the log of the decay from the chunk's start.
    """
    segment, head = tl.load(order + tl.program_id(0) // heads), tl.program_id(0) % heads
    group = head // per_group
    b_column = heads * p + group * n
    c_column = b_column + heads // per_group * n
    terms += 4 * head.to(tl.int64) * length
    factor = exp2(power)
    skipped = tl.load(skip + head) * factor
    first, end = tl.load(bounds + segment), tl.load(bounds + segment + 1)
    inside = tl.arange(0, n)[:, None] + tl.arange(0, p)[None, :] * n
    order = tl.arange(0, q)
    outputs = y + head * p + order.to(tl.int64)[:, None] * (heads * p) + tl.arange(0, p)[None, :]
    state = tl.zeros((n, p), tl.float32)
    if before is not None:
        state += tl.load(before + (segment * heads + head).to(tl.int64) * p * n + inside)
    for chunk in range(tl.cdiv(end - first, q)):
        start = first + chunk * q
        token = start + order
        key, query = keys_of.load([start, b_column]), keys_of.load([start, c_column])
        values, scores = values_of.load([start, head * p]), scores_of.load([start, group * q])
        row = load_term(terms, UNTIL, length, token, end, NOTHING) + power
        column = load_term(terms, COLUMN, length, token, end, 0.0)
        # Bounded above the diagonal, where nothing is read and it could overflow.
        weights = exp2(tl.minimum(row[:, None] - column[None, :], WEIGHT_POWER_MAX)) * scores.to(tl.float32)
        from_start = load_term(terms, FROM_START, length, token, end, 0.0) * factor
        found = multiply(query, state.to(values.dtype)) * from_start[:, None]
        found = multiply_add(weights.to(values.dtype), values, found) + values * skipped
        if gates_of is not None:
            found *= silu(gates_of.load([start, head * p]).to(tl.float32))
            tl.store(squares + head.to(tl.int64) * length + token, tl.sum(found * found, 1), mask=token < end)
        places = outputs + start.to(tl.int64) * (heads * p)
        tl.store(places, found.to(y.dtype.element_ty), mask=(token < end)[:, None])
        update = (values * load_term(terms, TO_END, length, token, end, 0.0)[:, None]).to(values.dtype)
        remains = tl.load(terms + FROM_START * length + tl.minimum(start + q, end) - 1)
        state = multiply_add(tl.trans(key), update, state * remains)
    if segment == segments - 1:
        tl.store(last + head.to(tl.int64) * p * n + inside, state)
