"""Triton kernels for the scan of Mamba-2. Letters as in ``encoder/scan.py``.

A program reads one head of one segment of one row, chunk by chunk, with the state in registers. A row is one segment,
unless there are too few rows to fill a device: then the states at the segments' bounds come first, from
``segment_states``, which adds up what each segment leaves, and ``carry_states``, which hands it on.

Sources: Dao and Gu 2024 (arXiv 2405.21060), section 6.
All sums and decays are float32, the factors of products have the dtype of ``x``. Tensors ``(b, l, ...)`` with ``*_row``
and ``*_token``, their strides, may be views; all else is contiguous. ``marks``, if any, are the ``seq_idx`` of
``encoder/scan.py``. Inside a kernel the state is ``(n, p)``, so that no product needs it transposed from registers;
before and after, it is ``(p, n)``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def program_place(heads: tl.constexpr, segments: tl.tensor) -> tl.tensor:
    """Give row, segment and head of this program; heads go fastest, for they share B and C."""
    program = tl.program_id(0)
    return (program // heads // segments).to(tl.int64), program // heads % segments, program % heads


@triton.jit
def load_tile(
    base: tl.tensor, token: tl.tensor, start: tl.tensor, end: tl.tensor, q: tl.constexpr, width: tl.constexpr
) -> tl.tensor:
    """Load ``(q, width)`` from token ``start`` on, with zeros from ``end`` on."""
    rows = tl.arange(0, q)
    places = base + start.to(tl.int64) * token + rows[:, None] * token + tl.arange(0, width)[None, :]
    return tl.load(places, mask=(start + rows < end)[:, None], other=0.0)


@triton.jit
def store_tile(
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
def load_steps(base: tl.tensor, heads: tl.constexpr, start: tl.tensor, end: tl.tensor, q: tl.constexpr) -> tl.tensor:
    """Load the time steps of one head, ``(q,)``: past ``end`` 0, which leaves the state as it is."""
    tokens = start + tl.arange(0, q)
    return tl.load(base + tokens.to(tl.int64) * heads, mask=tokens < end, other=0.0)


@triton.jit
def chunk_decays(
    decay: tl.tensor, marks: tl.tensor, start: tl.tensor, end: tl.tensor, q: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """From the logs of a chunk's decays give their sums until each token, three decays, and each token's mark.

    Namely from the chunk's start, zero for tokens of another sequence than the token before it; to its end, zero for
    those of another than its last; and of the whole chunk.
    """
    until, total = tl.cumsum(decay, 0), tl.sum(decay, 0)
    from_start, to_end, whole = tl.exp(until), tl.exp(total - until), tl.exp(total)
    mark = tl.zeros((q,), tl.int32)
    if marks is not None:
        tokens = start + tl.arange(0, q)
        mark = tl.load(marks + tokens, mask=tokens < end, other=-1)
        before = tl.load(marks + tl.maximum(start - 1, 0))  # the first state belongs to the first token's sequence
        after = tl.load(marks + tl.minimum(start + q, end) - 1)
        from_start = tl.where(mark == before, from_start, 0.0)
        to_end = tl.where(mark == after, to_end, 0.0)
        whole = tl.where(before == after, whole, 0.0)
    return until, from_start, to_end, whole, mark


@triton.jit
def multiply(left: tl.tensor, right: tl.tensor) -> tl.tensor:
    """Give a product in float32, without the rounding of its factors to TensorFloat-32."""
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def multiply_add(left: tl.tensor, right: tl.tensor, total: tl.tensor) -> tl.tensor:
    """Add :func:`multiply`'s product to ``total``."""
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
    marks: tl.tensor,  # (b, l) or None
    added: tl.tensor,  # out (b, s, h, p, n)
    decays: tl.tensor,  # out (b, s, h)
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
    """Read each segment from a state of zero, and give the state after it and the segment's decay.

    Reversed: the gradient of the state before it, had the one after it none.
    """
    row, segment, head = program_place(heads, segments)
    values += row * values_row + head * p
    keys += row * keys_row + head // per_group * n
    dt += row * length * heads + head
    if marks is not None:
        marks += row * length
    rate = tl.load(a + head)
    first = segment * segment_tokens
    end = tl.minimum(first + segment_tokens, length)
    chunks = tl.cdiv(end - first, q)
    state = tl.zeros((n, p), tl.float32)
    decay = tl.full((), 1.0, tl.float32)
    for index in range(chunks):
        start = first + (chunks - 1 - index if reverse else index) * q
        step = load_steps(dt, heads, start, end, q)
        _, from_start, to_end, whole, _ = chunk_decays(step * rate, marks, start, end, q)
        weight = from_start if reverse else to_end * step
        tile = load_tile(values, values_token, start, end, q, p)
        key = load_tile(keys, keys_token, start, end, q, n)
        state = multiply_add(tl.trans(key), (tile * weight[:, None]).to(key.dtype), state * whole)
        decay *= whole
    place = (row * segments + segment) * heads + head
    tl.store(added + place * p * n + tl.arange(0, n)[:, None] + tl.arange(0, p)[None, :] * n, state)
    tl.store(decays + place, decay)


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
        state = state * tl.load(decays + place) + own


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
    marks: tl.tensor,  # (b, l) or None
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
    row, segment, head = program_place(heads, segments)
    x += row * x_row + head * p
    b_in += row * b_row + head // per_group * n
    c_out += row * c_row + head // per_group * n
    dt += row * length * heads + head
    y += (row * length * heads + head) * p
    if marks is not None:
        marks += row * length
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
        step = load_steps(dt, heads, start, end, q)
        values = load_tile(x, x_token, start, end, q, p)
        key = load_tile(b_in, b_token, start, end, q, n)
        query = load_tile(c_out, c_token, start, end, q, n)
        until, from_start, to_end, whole, mark = chunk_decays(step * rate, marks, start, end, q)
        rounded = state.to(values.dtype)
        if kept is not None:
            place = (row * tl.cdiv(length, q) + start // q) * heads + head
            tl.store(kept + place * p * n + inside_kept, rounded)
        # Masked before the exponential: above the diagonal it would overflow.
        reads = (token[:, None] >= token[None, :]) & (mark[:, None] == mark[None, :])
        span = tl.where(reads, until[:, None] - until[None, :], float("-inf"))
        weights = multiply(query, tl.trans(key)) * tl.exp(span) * step[None, :]
        found = multiply(query, rounded) * from_start[:, None]
        found = multiply_add(weights.to(values.dtype), values, found) + values * skip
        store_tile(y, heads * p, start, end, found, q, p)
        update = (values * (to_end * step)[:, None]).to(values.dtype)
        state = multiply_add(tl.trans(key), update, state * whole)
    if segment == segments - 1:
        tl.store(last + (row * heads + head) * p * n + inside, state)
