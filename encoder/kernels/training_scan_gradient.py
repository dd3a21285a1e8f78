"""Triton kernels for the gradient of the scan of Mamba-2: the derivative, by hand, of what the forward pass computes.

Letters, programs and views as in ``encoder/kernels/training_scan_kernels.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from encoder.kernels.training_scan_kernels import (
    chunk_decays,
    load_steps,
    load_tile,
    multiply,
    multiply_add,
    program_place,
    store_tile,
)


@triton.jit
def sum_heads(
    of_heads: tl.tensor,  # (m, h, n)
    out: tl.tensor,  # out (m, g, n)
    out_token: tl.tensor,
    tokens: tl.tensor,
    per_group: tl.constexpr,
    n: tl.constexpr,
    read: tl.constexpr,
) -> None:
    """Add up what the heads of a group have of some tokens."""
    group, groups = tl.program_id(1), tl.num_programs(1)
    token = tl.program_id(0) * read + tl.arange(0, read)
    inside, token_long = (token < tokens)[:, None], token.to(tl.int64)[:, None]
    column = tl.arange(0, n)[None, :]
    places = of_heads + (token_long * groups + group) * per_group * n + column
    total = tl.zeros((read, n), tl.float32)
    for head in tl.static_range(per_group):
        total += tl.load(places + head * n, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token_long * out_token + group * n + column, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def scan_backward(
    dy: tl.tensor,  # (b, l, h, p)
    dy_row: tl.tensor,
    dy_token: tl.tensor,
    x: tl.tensor,  # (b, l, h, p)
    x_row: tl.tensor,
    x_token: tl.tensor,
    b_in: tl.tensor,  # (b, l, g, n)
    b_row: tl.tensor,
    b_token: tl.tensor,
    c_out: tl.tensor,  # (b, l, g, n)
    c_row: tl.tensor,
    c_token: tl.tensor,
    dt: tl.tensor,  # (b, l, h)
    a: tl.tensor,  # (h)
    d: tl.tensor,  # (h)
    marks: tl.tensor,  # (b, l) or None
    kept: tl.tensor,  # (b, c, h, n, p)
    after: tl.tensor,  # (b, s, h, p, n) or None: gradients of the states after each segment
    dx: tl.tensor,  # out (b, l, h, p)
    dx_row: tl.tensor,
    dx_token: tl.tensor,
    ddt: tl.tensor,  # out (b, l, h)
    db: tl.tensor,  # out (b, l, h, n)
    dc: tl.tensor,  # out (b, l, h, n)
    da: tl.tensor,  # out (b, s, h)
    dd: tl.tensor,  # out (b, s, h)
    dstate: tl.tensor,  # out (b, h, p, n) or None
    length: tl.tensor,
    segment_tokens: tl.tensor,
    segments: tl.tensor,
    heads: tl.constexpr,
    per_group: tl.constexpr,
    q: tl.constexpr,
    p: tl.constexpr,
    n: tl.constexpr,
) -> None:
    """Read each segment from its end, with the gradient of the state after a chunk in registers."""
    row, segment, head = program_place(heads, segments)
    dy += row * dy_row + head * p
    x += row * x_row + head * p
    b_in += row * b_row + head // per_group * n
    c_out += row * c_row + head // per_group * n
    token_head = row * length * heads + head
    dx += row * dx_row + head * p
    if marks is not None:
        marks += row * length
    rate, skip = tl.load(a + head), tl.load(d + head)
    first = segment * segment_tokens
    end = tl.minimum(first + segment_tokens, length)
    chunks = tl.cdiv(end - first, q)
    inside = tl.arange(0, n)[:, None] + tl.arange(0, p)[None, :] * n
    inside_kept = tl.arange(0, n)[:, None] * p + tl.arange(0, p)[None, :]
    place = (row * segments + segment) * heads + head
    dlast = tl.zeros((n, p), tl.float32)
    if after is not None:
        dlast += tl.load(after + place * p * n + inside)
    da_rows, dd_rows = tl.zeros((q,), tl.float32), tl.zeros((q,), tl.float32)
    for index in range(chunks):
        start = first + (chunks - 1 - index) * q
        step = load_steps(dt + token_head, heads, start, end, q)
        dout = load_tile(dy, dy_token, start, end, q, p)
        values = load_tile(x, x_token, start, end, q, p)
        key = load_tile(b_in, b_token, start, end, q, n)
        query = load_tile(c_out, c_token, start, end, q, n)
        state_place = (row * tl.cdiv(length, q) + start // q) * heads + head
        state = tl.load(kept + state_place * p * n + inside_kept)
        decays = chunk_decays(step * rate, marks, start, end, q)
        outputs = dx, db + token_head * n, dc + token_head * n, ddt + token_head
        dlast, da_row, dd_row = _chunk_gradients(
            dout,
            values,
            key,
            query,
            state,
            step,
            rate,
            skip,
            decays,
            dlast,
            outputs,
            dx_token,
            start,
            end,
            heads,
            q,
            p,
            n,
        )
        da_rows += da_row
        dd_rows += dd_row
    tl.store(da + place, tl.sum(da_rows, 0))
    tl.store(dd + place, tl.sum(dd_rows, 0))
    if dstate is not None:  # noqa: SIM102 - known when compiled, unlike the next
        if segment == 0:
            tl.store(dstate + (row * heads + head) * p * n + inside, dlast)


@triton.jit
def _chunk_gradients(
    dout: tl.tensor,  # (q, p)
    values: tl.tensor,  # (q, p)
    key: tl.tensor,  # (q, n)
    query: tl.tensor,  # (q, n)
    state: tl.tensor,  # (n, p): before the chunk
    step: tl.tensor,  # (q,)
    rate: tl.tensor,
    skip: tl.tensor,
    decays: tl.tensor,  # of chunk_decays
    dlast: tl.tensor,  # (n, p): gradient of the state after the chunk
    outputs: tl.tensor,  # where the gradients of this head's x, B, C and dt begin
    dx_token: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    heads: tl.constexpr,
    q: tl.constexpr,
    p: tl.constexpr,
    n: tl.constexpr,
) -> tl.tensor:
    """Store the gradients of a chunk; give those of the state before it and, of each token, of ``a`` and ``d``."""
    rounded = dlast.to(values.dtype)
    until, from_start, to_end, whole, mark = decays

    # One gradient after the other, so that few tiles are held at once.
    weights, dscores, dstep, duntil, dskip = _pair_gradients(dout, values, key, query, step, until, mark, skip, q)
    dvalues = multiply(key, rounded) * to_end[:, None]
    carried = tl.sum(dvalues * values, 1)
    dvalues = multiply_add(weights, dout, dvalues * step[:, None])
    store_tile(outputs[0], dx_token, start, end, dvalues, q, p)
    dkey = multiply(values, tl.trans(rounded)) * (to_end * step)[:, None]
    dkey = multiply_add(dscores, query, dkey)
    store_tile(outputs[1], heads * n, start, end, dkey, q, n)
    dquery = multiply(dout, tl.trans(state)) * from_start[:, None]
    duntil += tl.sum(dquery * query, 1) - carried * step
    dquery = multiply_add(tl.trans(dscores), key, dquery)
    store_tile(outputs[2], heads * n, start, end, dquery, q, n)

    # A token's decay is part of until for it and all that follow, and of the whole chunk's.
    dtotal = tl.sum(carried * step, 0) + whole * tl.sum(tl.sum(state * dlast, 1), 0)
    ddecay = tl.cumsum(duntil, 0, reverse=True) + dtotal
    tokens = start + tl.arange(0, q)
    tl.store(outputs[3] + tokens.to(tl.int64) * heads, dstep + carried + rate * ddecay, mask=tokens < end)
    faded = (dout * from_start[:, None]).to(dout.dtype)
    dlast = multiply_add(tl.trans(query), faded, dlast * whole)
    return dlast, step * ddecay, dskip


@triton.jit
def _pair_gradients(
    dout: tl.tensor,  # (q, p)
    values: tl.tensor,  # (q, p)
    key: tl.tensor,  # (q, n)
    query: tl.tensor,  # (q, n)
    step: tl.tensor,  # (q,)
    until: tl.tensor,  # (q,)
    mark: tl.tensor,  # (q,)
    skip: tl.tensor,
    q: tl.constexpr,
) -> tl.tensor:
    """Give what the pairs of a chunk's tokens, j read by i, contribute: all (j, i), as only one must be transposed.

    That is how much of x[j] is in y[i], and the gradient of C[i] . B[j], both ready for products; then, of each token,
    the gradients of dt where it scales x, of ``until``, and of ``skip``.
    """
    later, earlier = tl.arange(0, q)[None, :], tl.arange(0, q)[:, None]
    reads = (later >= earlier) & (mark[None, :] == mark[:, None])
    span = tl.where(reads, until[None, :] - until[:, None], float("-inf"))
    reach = tl.exp(span)
    dweights = multiply(values, tl.trans(dout))  # of what stands in y[i] for x[j]
    dskip = tl.sum(tl.where(later == earlier, dweights, 0.0), 1)
    weights = multiply(key, tl.trans(query)) * reach
    dspan = dweights * weights
    dstep = tl.sum(dspan, 1)
    duntil = tl.sum(dspan * step[:, None], 0) - dstep * step
    dscores = dweights * step[:, None] * reach
    weights = weights * step[:, None] + tl.where(later == earlier, skip, 0.0)
    return weights.to(values.dtype), dscores.to(values.dtype), dstep, duntil, dskip
