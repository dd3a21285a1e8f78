"""Triton kernels for the scan of Mamba-2 and its gradient. Letters as in ``encoder/scan.py``.

A program reads one head of one segment of one row, chunk by chunk, with the state in registers. A row is one segment,
unless there are too few rows to fill a device: then the states at the segments' bounds come first, from
``segment_states``, which adds up what each segment leaves, and ``carry_states``, which hands it on.

Sources: Dao and Gu 2024 (arXiv 2405.21060), section 6, for the forward pass; the gradient is its derivative by hand.
All sums and decays are float32, the factors of products have the dtype of ``x``. Inputs ``(b, l, ...)`` may be views:
``*_row`` and ``*_token`` are their strides; all else is contiguous. Inside a kernel the state is ``(n, p)``, so that
no product needs it transposed from registers; before and after, it is ``(p, n)``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(heads: tl.constexpr, segments: tl.tensor) -> tl.tensor:
    """Give row, segment and head of this program; heads go fastest, for they share B and C."""
    program = tl.program_id(0)
    return (program // heads // segments).to(tl.int64), program // heads % segments, program % heads


@triton.jit
def _load_tile(
    base: tl.tensor, token: tl.tensor, start: tl.tensor, end: tl.tensor, q: tl.constexpr, width: tl.constexpr
) -> tl.tensor:
    """Load ``(q, width)`` from token ``start`` on, with zeros from ``end`` on."""
    rows = tl.arange(0, q)
    places = base + start.to(tl.int64) * token + rows[:, None] * token + tl.arange(0, width)[None, :]
    return tl.load(places, mask=(start + rows < end)[:, None], other=0.0)


@triton.jit
def _store_tile(
    base: tl.tensor,
    token: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    tile: tl.tensor,
    q: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Store ``(q, width)`` from token ``start`` on, up to ``end``."""
    rows = tl.arange(0, q)
    places = base + start.to(tl.int64) * token + rows[:, None] * token + tl.arange(0, width)[None, :]
    tl.store(places, tile.to(base.dtype.element_ty), mask=(start + rows < end)[:, None])


@triton.jit
def _load_steps(base: tl.tensor, heads: tl.constexpr, start: tl.tensor, end: tl.tensor, q: tl.constexpr) -> tl.tensor:
    """Load the time steps of one head, ``(q,)``: past ``end`` 0, which leaves the state as it is."""
    tokens = start + tl.arange(0, q)
    return tl.load(base + tokens.to(tl.int64) * heads, mask=tokens < end, other=0.0)


@triton.jit
def _multiply(left: tl.tensor, right: tl.tensor) -> tl.tensor:
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _multiply_add(left: tl.tensor, right: tl.tensor, total: tl.tensor) -> tl.tensor:
    return tl.dot(left, right, total, input_precision="ieee")


@triton.jit
def segment_states(
    values: tl.tensor,  # (b, l, h, p): x; reversed, the gradient of y
    values_row: tl.tensor,
    values_token: tl.tensor,
    keys: tl.tensor,  # (b, l, g, n): B; reversed, C
    keys_row: tl.tensor,
    keys_token: tl.tensor,
    dt: tl.tensor,  # (b, l, h)
    a: tl.tensor,  # (h)
    added: tl.tensor,  # out (b, s, h, p, n)
    decays: tl.tensor,  # out (b, s, h): logs
    length: tl.tensor,
    segment_tokens: tl.tensor,
    segments: tl.tensor,
    heads: tl.constexpr,
    per_group: tl.constexpr,
    reverse: tl.constexpr,
    q: tl.constexpr,
    p: tl.constexpr,
    n: tl.constexpr,
) -> None:
    """Read each segment from a state of zero, and give the state after it and the log of the segment's decay.

    Reversed: the gradient of the state before it, had the one after it none.
    """
    row, segment, head = _place(heads, segments)
    values += row * values_row + head * p
    keys += row * keys_row + head // per_group * n
    dt += row * length * heads + head
    rate = tl.load(a + head)
    first = segment * segment_tokens
    end = tl.minimum(first + segment_tokens, length)
    chunks = tl.cdiv(end - first, q)
    state = tl.zeros((n, p), tl.float32)
    decay_rows = tl.zeros((q,), tl.float32)
    for index in range(chunks):
        start = first + (chunks - 1 - index if reverse else index) * q
        step = _load_steps(dt, heads, start, end, q)
        decay = step * rate
        decay_rows += decay
        until, total = tl.cumsum(decay, 0), tl.sum(decay, 0)
        weight = tl.exp(until) if reverse else tl.exp(total - until) * step
        tile = _load_tile(values, values_token, start, end, q, p)
        key = _load_tile(keys, keys_token, start, end, q, n)
        state = _multiply_add(tl.trans(key), (tile * weight[:, None]).to(key.dtype), state * tl.exp(total))
    place = (row * segments + segment) * heads + head
    tl.store(added + place * p * n + tl.arange(0, n)[:, None] + tl.arange(0, p)[None, :] * n, state)
    tl.store(decays + place, tl.sum(decay_rows, 0))


@triton.jit
def carry_states(
    added: tl.tensor,  # (b, s, h, p, n); the states take its place
    decays: tl.tensor,  # (b, s, h)
    first: tl.tensor,  # (b, h, p, n) or None
    segments: tl.tensor,
    heads: tl.constexpr,
    reverse: tl.constexpr,
    size: tl.constexpr,  # p * n
    block: tl.constexpr,
) -> None:
    """Put in place of what each segment adds the state before it; reversed, the gradient of the state after it."""
    row, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    inside = tl.program_id(1) * block + tl.arange(0, block)
    state = tl.zeros((block,), tl.float32)
    if first is not None:
        state += tl.load(first + (row * heads + head) * size + inside)
    for index in range(segments):
        place = (row * segments + (segments - 1 - index if reverse else index)) * heads + head
        own = tl.load(added + place * size + inside)
        tl.store(added + place * size + inside, state)
        state = state * tl.exp(tl.load(decays + place)) + own


@triton.jit
def scan_forward(
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
    before: tl.tensor,  # (b, s, h, p, n) or None
    y: tl.tensor,  # out (b, l, h, p)
    last: tl.tensor,  # out (b, h, p, n)
    kept: tl.tensor,  # out (b, c, h, n, p) or None: the states before each chunk, for the gradient
    length: tl.tensor,
    segment_tokens: tl.tensor,
    segments: tl.tensor,
    heads: tl.constexpr,
    per_group: tl.constexpr,
    q: tl.constexpr,
    p: tl.constexpr,
    n: tl.constexpr,
) -> None:
    """Scan: ``y[i] = exp(until[i]) C[i] S + sum over j <= i of exp(until[i] - until[j]) (C[i] . B[j]) dt[j] x[j]``.

    Plus ``d x``. ``until`` is the log of the decay from the chunk's start.
    """
    row, segment, head = _place(heads, segments)
    x += row * x_row + head * p
    b_in += row * b_row + head // per_group * n
    c_out += row * c_row + head // per_group * n
    dt += row * length * heads + head
    y += (row * length * heads + head) * p
    rate, skip = tl.load(a + head), tl.load(d + head)
    first = segment * segment_tokens
    end = tl.minimum(first + segment_tokens, length)
    inside = tl.arange(0, n)[:, None] + tl.arange(0, p)[None, :] * n
    inside_kept = tl.arange(0, n)[:, None] * p + tl.arange(0, p)[None, :]
    token = tl.arange(0, q)
    state = tl.zeros((n, p), tl.float32)
    if before is not None:
        state += tl.load(before + ((row * segments + segment) * heads + head) * p * n + inside)
    for chunk in range(tl.cdiv(end - first, q)):
        start = first + chunk * q
        step = _load_steps(dt, heads, start, end, q)
        values = _load_tile(x, x_token, start, end, q, p)
        key = _load_tile(b_in, b_token, start, end, q, n)
        query = _load_tile(c_out, c_token, start, end, q, n)
        until, total = tl.cumsum(step * rate, 0), tl.sum(step * rate, 0)
        rounded = state.to(values.dtype)
        if kept is not None:
            place = (row * tl.cdiv(length, q) + start // q) * heads + head
            tl.store(kept + place * p * n + inside_kept, rounded)
        # Masked before the exponential: above the diagonal it would overflow.
        span = tl.where(token[:, None] >= token[None, :], until[:, None] - until[None, :], float("-inf"))
        weights = _multiply(query, tl.trans(key)) * tl.exp(span) * step[None, :]
        found = _multiply(query, rounded) * tl.exp(until)[:, None]
        found = _multiply_add(weights.to(values.dtype), values, found) + values * skip
        _store_tile(y, heads * p, start, end, found, q, p)
        update = (values * (tl.exp(total - until) * step)[:, None]).to(values.dtype)
        state = _multiply_add(tl.trans(key), update, state * tl.exp(total))
    if segment == segments - 1:
        tl.store(last + (row * heads + head) * p * n + inside, state)


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
    kept: tl.tensor,  # (b, c, h, n, p)
    after: tl.tensor,  # (b, s, h, p, n) or None: gradients of the states after each segment
    dx: tl.tensor,  # out (b, l, h, p)
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
    row, segment, head = _place(heads, segments)
    dy += row * dy_row + head * p
    x += row * x_row + head * p
    b_in += row * b_row + head // per_group * n
    c_out += row * c_row + head // per_group * n
    token_head = row * length * heads + head
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
        step = _load_steps(dt + token_head, heads, start, end, q)
        dout = _load_tile(dy, dy_token, start, end, q, p)
        values = _load_tile(x, x_token, start, end, q, p)
        key = _load_tile(b_in, b_token, start, end, q, n)
        query = _load_tile(c_out, c_token, start, end, q, n)
        state_place = (row * tl.cdiv(length, q) + start // q) * heads + head
        state = tl.load(kept + state_place * p * n + inside_kept)
        outputs = dx + token_head * p, db + token_head * n, dc + token_head * n, ddt + token_head
        dlast, da_row, dd_row = _chunk_gradients(
            dout, values, key, query, state, step, rate, skip, dlast, outputs, start, end, heads, q, p, n
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
    dlast: tl.tensor,  # (n, p): gradient of the state after the chunk
    outputs: tl.tensor,  # where the gradients of this head's x, B, C and dt begin
    start: tl.tensor,
    end: tl.tensor,
    heads: tl.constexpr,
    q: tl.constexpr,
    p: tl.constexpr,
    n: tl.constexpr,
) -> tl.tensor:
    """Store the gradients of a chunk; give those of the state before it and, of each token, of ``a`` and ``d``."""
    rounded = dlast.to(values.dtype)
    until, total = tl.cumsum(step * rate, 0), tl.sum(step * rate, 0)
    to_end, from_start = tl.exp(total - until), tl.exp(until)

    # One gradient after the other, so that few tiles are held at once.
    weights, dscores, dstep, duntil, dskip = _pair_gradients(dout, values, key, query, step, until, skip, q)
    dvalues = _multiply(key, rounded) * to_end[:, None]
    carried = tl.sum(dvalues * values, 1)
    dvalues = _multiply_add(weights, dout, dvalues * step[:, None])
    _store_tile(outputs[0], heads * p, start, end, dvalues, q, p)
    dkey = _multiply(values, tl.trans(rounded)) * (to_end * step)[:, None]
    dkey = _multiply_add(dscores, query, dkey)
    _store_tile(outputs[1], heads * n, start, end, dkey, q, n)
    dquery = _multiply(dout, tl.trans(state)) * from_start[:, None]
    duntil += tl.sum(dquery * query, 1) - carried * step
    dquery = _multiply_add(tl.trans(dscores), key, dquery)
    _store_tile(outputs[2], heads * n, start, end, dquery, q, n)

    # A token's decay is part of until for it and all that follow, and of the whole chunk's, total.
    dtotal = tl.sum(carried * step, 0) + tl.exp(total) * tl.sum(tl.sum(state * dlast, 1), 0)
    ddecay = tl.cumsum(duntil, 0, reverse=True) + dtotal
    tokens = start + tl.arange(0, q)
    tl.store(outputs[3] + tokens.to(tl.int64) * heads, dstep + carried + rate * ddecay, mask=tokens < end)
    faded = (dout * from_start[:, None]).to(dout.dtype)
    dlast = _multiply_add(tl.trans(query), faded, dlast * tl.exp(total))
    return dlast, step * ddecay, dskip


@triton.jit
def _pair_gradients(
    dout: tl.tensor,  # (q, p)
    values: tl.tensor,  # (q, p)
    key: tl.tensor,  # (q, n)
    query: tl.tensor,  # (q, n)
    step: tl.tensor,  # (q,)
    until: tl.tensor,  # (q,)
    skip: tl.tensor,
    q: tl.constexpr,
) -> tl.tensor:
    """Give what the pairs of a chunk's tokens, j read by i, contribute: all (j, i), as only one must be transposed.

    That is how much of x[j] is in y[i], and the gradient of C[i] . B[j], both ready for products; then, of each token,
    the gradients of dt where it scales x, of ``until``, and of ``skip``.
    """
    later, earlier = tl.arange(0, q)[None, :], tl.arange(0, q)[:, None]
    span = tl.where(later >= earlier, until[None, :] - until[:, None], float("-inf"))
    reach = tl.exp(span)
    dweights = _multiply(values, tl.trans(dout))  # of what stands in y[i] for x[j]
    dskip = tl.sum(tl.where(later == earlier, dweights, 0.0), 1)
    weights = _multiply(key, tl.trans(query)) * reach
    dspan = dweights * weights
    dstep = tl.sum(dspan, 1)
    duntil = tl.sum(dspan * step[:, None], 0) - dstep * step
    dscores = dweights * step[:, None] * reach
    weights = weights * step[:, None] + tl.where(later == earlier, skip, 0.0)
    return weights.to(values.dtype), dscores.to(values.dtype), dstep, duntil, dskip
