"""Triton kernels: the scan of Mamba-1 for inference, with skip and gate. Letters as in ``encoder/mamba.py``; one row.

Every place of a state decays at its own rate, so that no chunk is a matrix product, as in Mamba-2: what bounds the scan
is one exponential for each token, channel and place. So tokens are read one after the other, and a thread holds whole
states of its channels, a register for each place: nothing is summed across threads, nothing but the row is read. States
are tuples of tensors over channels, as Triton itself would spread places over threads. What a token needs is loaded
ahead of its use: its channels' values some tokens before, its B and C one token before.

B and C, which all channels share, are pairs of float32, loaded as one integer. Segments, and states before them, are as
in ``encoder/kernels/fused/scan.py``. Sums and decays are float32, decays as powers of two. Source: Gu and Dao 2023
(arXiv 2312.00752), algorithm 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from encoder.kernels.fused.elementary import exp2, read_until, silu, softplus

ROWS_MORE = 8  # of ``numbers``, that are read where a row has ended: more than ``read``
_LONG = tl.constexpr(1e30)  # a time after which nothing is left of any state
_NO_STEP = tl.constexpr(-1e4)  # of which softplus is zero, whatever the bias; within float16


@triton.jit
def load_tokens(
    base: tl.tensor,
    stride: tl.constexpr,
    token: tl.tensor,
    end: tl.tensor,
    own: tl.tensor,
    other: tl.constexpr,
    read: tl.constexpr,
) -> tl.tuple:
    """Load some channels of ``read`` tokens, a tensor for each; ``base`` points to those of the first."""
    loaded: tl.tuple = ()
    for ahead in tl.static_range(read):
        loaded += (tl.load(base + ahead * stride, mask=own & (token + ahead < end), other=other),)
    return loaded


@triton.jit
def load_numbers(base: tl.tensor, count: tl.constexpr) -> tl.tuple:
    """Load a token's B and C, or the first of them: pairs of numbers."""
    loaded: tl.tuple = ()
    for pair in tl.static_range(count // 2):
        loaded += (tl.load(base + pair),)
    return loaded


@triton.jit
def number_of(pairs: tl.tuple, place: tl.constexpr) -> tl.tensor:
    """Give one of the numbers of some pairs: half of a pair of registers, and no instruction."""
    pair = pairs[place // 2] >> (place % 2 * 32)
    return pair.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def load_places(base: tl.tensor, own: tl.tensor, n: tl.constexpr) -> tl.tuple:
    """Load a number for each place of the states of some channels; ``base`` points to the first places."""
    loaded: tl.tuple = ()
    for place in tl.static_range(n):
        loaded += (tl.load(base + place, mask=own, other=0.0),)
    return loaded


@triton.jit
def store_places(base: tl.tensor, state: tl.tuple, own: tl.tensor, n: tl.constexpr) -> None:
    """Store states where :func:`load_places` would load them."""
    for place in tl.static_range(n):
        tl.store(base + place, state[place], mask=own)


@triton.jit
def no_state(block: tl.constexpr, n: tl.constexpr) -> tl.tuple:
    """Give states of zero."""
    state: tl.tuple = ()
    for _ in tl.static_range(n):
        state += (tl.zeros((block,), tl.float32),)
    return state


@triton.jit
def time_of(
    step: tl.tensor, marks: tl.tensor, token: tl.tensor, end: tl.tensor, mark: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """Give how long states decay at a token, and its mark: for long if that is not ``mark``, of the token before."""
    time = step
    if marks is not None:
        found = tl.load(marks + token, mask=token < end, other=mark)
        time = tl.where(found == mark, step, _LONG)
        mark = found
    return time, mark


@triton.jit
def read_on(
    state: tl.tuple, rate: tl.tuple, time: tl.tensor, entering: tl.tensor, numbers: tl.tuple, n: tl.constexpr
) -> tl.tuple:
    """Give the states after a token: they decay for a time, and what enters is added, times B."""
    after: tl.tuple = ()
    for place in tl.static_range(n):
        after += (exp2(time * rate[place]) * state[place] + entering * number_of(numbers, place),)
    return after


@triton.jit(do_not_specialize=["segments"], do_not_specialize_on_alignment=["bounds", "order"])
def selective_scan(
    values: tl.tensor,  # (l, e): x
    raw_steps: tl.tensor,  # (l, e): time steps before bias and softplus
    numbers: tl.tensor,  # (l and some more, n): B (n) and C (n), in pairs
    gates: tl.tensor,  # (l, e) of rows of gates_token: z; or None
    rates: tl.tensor,  # (e, n): A, as powers of two
    dt_bias: tl.tensor,  # (e)
    skip: tl.tensor,  # (e): D
    marks: tl.tensor,  # (l) or None
    bounds: tl.tensor,  # (s + 1)
    order: tl.tensor,  # (s): segments, as they are read
    limit: tl.tensor,  # (1) tokens that are read, or None, and all are: time steps behind are zero
    before: tl.tensor,  # (s, e, n) or None
    y: tl.tensor,  # out (l, e)
    last: tl.tensor,  # out (e, n)
    segments: tl.tensor,
    gates_token: tl.constexpr,
    e: tl.constexpr,
    n: tl.constexpr,
    block: tl.constexpr,  # channels of a program
    read: tl.constexpr,  # tokens that are loaded at once
) -> None:
    """Scan: ``S[t] = exp(dt[t] a) S[t - 1] + dt[t] x[t] B[t]``, and ``y[t] = (S[t] . C[t] + D x[t]) silu(z[t])``."""
    blocks: tl.constexpr = (e + block - 1) // block
    segment, column = tl.load(order + tl.program_id(0) // blocks), tl.program_id(0) % blocks
    channel = column * block + tl.arange(0, block)
    own = channel < e
    first, end = tl.load(bounds + segment), tl.load(bounds + segment + 1)
    counted = read_until(limit, end)
    rate = load_places(rates + channel * n, own, n)
    bias = tl.load(dt_bias + channel, mask=own, other=0.0)
    skipped = tl.load(skip + channel, mask=own, other=0.0)
    state = no_state(block, n)
    if before is not None:
        state = load_places(before + segment.to(tl.int64) * (e * n) + channel * n, own, n)
    mark = tl.full((), 0, tl.int32)
    if marks is not None:
        mark = tl.load(marks + first)  # of the sequence that the state before belongs to
    start = first.to(tl.int64)
    values += start * e + channel
    raw_steps += start * e + channel
    numbers += start * n
    y += start * e + channel
    z: tl.tuple = ()
    if gates is not None:
        gates += start * gates_token + channel
        z = load_tokens(gates, gates_token, first, end, own, 0.0, read)
    x = load_tokens(values, e, first, end, own, 0.0, read)
    raw = load_tokens(raw_steps, e, first, counted, own, _NO_STEP, read)
    mixed = load_numbers(numbers, 2 * n)
    for token in range(first, end, read):
        values += read * e
        raw_steps += read * e
        x_next = load_tokens(values, e, token + read, end, own, 0.0, read)
        raw_next = load_tokens(raw_steps, e, token + read, counted, own, _NO_STEP, read)
        z_next: tl.tuple = ()
        if gates is not None:
            gates += read * gates_token
            z_next = load_tokens(gates, gates_token, token + read, end, own, 0.0, read)
        for ahead in tl.static_range(read):
            mixed_next = load_numbers(numbers + (ahead + 1) * n, 2 * n)
            step = softplus(raw[ahead].to(tl.float32) + bias)
            time, mark = time_of(step, marks, token + ahead, end, mark)
            value = x[ahead].to(tl.float32)
            state = read_on(state, rate, time, step * value, mixed, n)
            found = skipped * value
            for place in tl.static_range(n):
                found += state[place] * number_of(mixed, n + place)
            if gates is not None:
                found *= silu(z[ahead].to(tl.float32))
            tl.store(y + ahead * e, found.to(y.dtype.element_ty), mask=own & (token + ahead < end))
            mixed = mixed_next
        y += read * e
        numbers += read * n
        x, raw, z = x_next, raw_next, z_next
    if segment == segments - 1:
        store_places(last + channel * n, state, own, n)


@triton.jit(do_not_specialize_on_alignment=["bounds", "carried", "order"])
def segment_states(
    values: tl.tensor,  # (l, e): x
    raw_steps: tl.tensor,  # (l, e)
    numbers: tl.tensor,  # (l and some more, n)
    rates: tl.tensor,  # (e, n)
    dt_bias: tl.tensor,  # (e)
    marks: tl.tensor,  # (l) or None
    bounds: tl.tensor,  # (s + 1)
    carried: tl.tensor,  # (s + 1): 1 where a segment reads on within a sequence
    order: tl.tensor,  # (s): segments, as they are read
    limit: tl.tensor,  # (1) tokens that are read, or None, and all are: time steps behind are zero
    added: tl.tensor,  # out (s, e, n)
    times: tl.tensor,  # out (s, e)
    e: tl.constexpr,
    n: tl.constexpr,
    block: tl.constexpr,
    read: tl.constexpr,
) -> None:
    """Read each segment from a state of zero where the next reads on; give the state after it, and how long it took."""
    blocks: tl.constexpr = (e + block - 1) // block
    segment, column = tl.load(order + tl.program_id(0) // blocks), tl.program_id(0) % blocks
    if tl.load(carried + segment + 1) == 0:
        return
    channel = column * block + tl.arange(0, block)
    own = channel < e
    first, end = tl.load(bounds + segment), tl.load(bounds + segment + 1)
    counted = read_until(limit, end)
    rate = load_places(rates + channel * n, own, n)
    bias = tl.load(dt_bias + channel, mask=own, other=0.0)
    state = no_state(block, n)
    took = tl.zeros((block,), tl.float32)
    mark = tl.full((), 0, tl.int32)
    if marks is not None:
        mark = tl.load(marks + first)
    start = first.to(tl.int64)
    values += start * e + channel
    raw_steps += start * e + channel
    numbers += start * n
    x = load_tokens(values, e, first, end, own, 0.0, read)
    raw = load_tokens(raw_steps, e, first, counted, own, _NO_STEP, read)
    mixed = load_numbers(numbers, n)
    for token in range(first, end, read):
        values += read * e
        raw_steps += read * e
        x_next = load_tokens(values, e, token + read, end, own, 0.0, read)
        raw_next = load_tokens(raw_steps, e, token + read, counted, own, _NO_STEP, read)
        for ahead in tl.static_range(read):
            mixed_next = load_numbers(numbers + (ahead + 1) * n, n)
            step = softplus(raw[ahead].to(tl.float32) + bias)
            time, mark = time_of(step, marks, token + ahead, end, mark)
            state = read_on(state, rate, time, step * x[ahead].to(tl.float32), mixed, n)
            took += time
            mixed = mixed_next
        numbers += read * n
        x, raw = x_next, raw_next
    place = segment.to(tl.int64) * e + channel
    store_places(added + place * n, state, own, n)
    tl.store(times + place, took, mask=own)
