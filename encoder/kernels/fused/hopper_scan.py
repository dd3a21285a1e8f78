"""Gluon kernel: the scan of ``encoder/kernels/fused/scan.py`` for Hopper, each copy and product begun as early as may be.

The same function of the same arguments, and the same segments, chunks and programs. What differs is when things
happen, which Triton's own pipeliner leaves little choice in: the next chunk's B and x are fetched two chunks ahead, C,
scores and gates as soon as their places are free, terms into registers a chunk ahead; weights are found while the first
product runs, and gates are applied while the state is updated. Two programs share a multiprocessor and its 227 KB.

Letters as in ``encoder/scan.py``. Products are warpgroup products, of 64 tokens and so many channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

_NOTHING = gl.constexpr(-1e30)  # a power of two that is zero
_WEIGHT_POWER_MAX = gl.constexpr(100.0)  # as in scan.py
_CAPABILITY = 9  # of devices with these products: later ones have others


def covers(q: int, p: int, n: int, device: torch.device) -> bool:
    """Say whether the kernel reads chunks of ``q`` tokens and heads of these sizes, and runs on a device."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != _CAPABILITY:
        return False
    return (q, p) == (64, 64) and n in (64, 128)


def describe(x: Tensor, sides: list[int]) -> TensorDescriptor:
    """Describe a matrix in tiles of these sides, as the kernel takes it."""
    dtype = gl.bfloat16 if x.dtype == torch.bfloat16 else gl.float16
    return TensorDescriptor.from_tensor(x, sides, gl.NVMMASharedLayout.get_default_for(sides, dtype))


@gluon.jit(do_not_specialize=["length", "segments"], do_not_specialize_on_alignment=["bounds", "order"])
def scan(
    values_of: tma.tensor_descriptor,  # convolved (l, f) in tiles (q, p): x (h, p)
    keys_of: tma.tensor_descriptor,  # the same in tiles (q, n): B and C (g, n)
    gates_of: tma.tensor_descriptor,  # (l, w) in tiles (q, p), z (h, p) first, or None
    scores_of: tma.tensor_descriptor,  # (l, g q) in tiles (q, q)
    terms: gl.tensor,  # (h, 4, l)
    skip: gl.tensor,  # (h): D
    bounds: gl.tensor,  # (s + 1)
    order: gl.tensor,  # (s): segments, as they are read
    before: gl.tensor,  # (s, h, p, n) or None
    y: gl.tensor,  # out (l, h, p)
    squares: gl.tensor,  # out (h, l), or None
    last: gl.tensor,  # out (h, p, n)
    length: gl.tensor,
    segments: gl.tensor,
    heads: gl.constexpr,
    per_group: gl.constexpr,
    q: gl.constexpr,
    p: gl.constexpr,
    n: gl.constexpr,
) -> None:
    """Scan, as :func:`encoder.kernels.fused.scan.scan`."""
    dtype: gl.constexpr = values_of.dtype
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, p, 16])  # (q, p), and (n, p) of the state
    square: gl.constexpr = gl.DotOperandLayout(0, wide, 2)  # (q, q) in registers, as a first factor
    by_rows: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])  # (q, p) as memory likes it
    flat: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])  # (4 q)
    state_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([n, p], dtype)
    segment, head = gl.load(order + gl.program_id(0) // heads), gl.program_id(0) % heads
    group = head // per_group
    x_column = head * p
    b_column = heads * p + group * n
    c_column = b_column + heads // per_group * n
    s_column = group * q
    terms += 4 * head.to(gl.int64) * length
    skipped = gl.load(skip + head)
    first, end = gl.load(bounds + segment), gl.load(bounds + segment + 1)
    chunks = (end - first + q - 1) // q

    keys = gl.allocate_shared_memory(dtype, [2, q, n], keys_of.layout)
    values = gl.allocate_shared_memory(dtype, [2, q, p], values_of.layout)
    query = gl.allocate_shared_memory(dtype, [1, q, n], keys_of.layout)
    scores = gl.allocate_shared_memory(dtype, [1, q, q], scores_of.layout)
    gates = gl.allocate_shared_memory(dtype, [1, q, p], values_of.layout)
    states = gl.allocate_shared_memory(dtype, [n, p], state_layout)
    updates = gl.allocate_shared_memory(dtype, [q, p], values_of.layout)
    kinds = gl.allocate_shared_memory(gl.float32, [4 * q], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    arrived = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())  # B and x of chunk i at i % 2
    query_arrived = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())  # C and scores
    gates_arrived = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())  # z
    mbarrier.init(arrived.index(0), count=1)
    mbarrier.init(arrived.index(1), count=1)
    mbarrier.init(query_arrived.index(0), count=1)
    mbarrier.init(gates_arrived.index(0), count=1)
    fence_async_shared()
    fetch(keys_of, values_of, keys, values, arrived, first, 0, chunks, b_column, x_column, 2)
    fetch(keys_of, scores_of, query, scores, query_arrived, first, 0, chunks, c_column, s_column, 1)
    if gates_of is not None:
        fetch(gates_of, None, gates, None, gates_arrived, first, 0, chunks, x_column, 0, 1)
    fetch(keys_of, values_of, keys, values, arrived, first, 1, chunks, b_column, x_column, 2)
    numbers = gl.arange(0, 4 * q, flat)
    ahead = load_terms(terms, numbers, first, end, length, q)
    remains_ahead = gl.load(terms + 2 * length + gl.minimum(first + q, end) - 1)
    inside = gl.arange(0, n, gl.SliceLayout(1, wide))[:, None] + gl.arange(0, p, gl.SliceLayout(0, wide))[None, :] * n
    state = gl.zeros([n, p], gl.float32, wide)
    if before is not None:
        state += gl.load(before + (segment * heads + head).to(gl.int64) * p * n + inside)
    row_token = gl.arange(0, q, gl.SliceLayout(1, by_rows))
    channel = gl.arange(0, p, gl.SliceLayout(0, by_rows))
    outputs = y + x_column + row_token.to(gl.int64)[:, None] * (heads * p) + channel[None, :]
    sum_token = gl.arange(0, q, gl.SliceLayout(1, wide))

    for chunk in range(chunks):
        start = first + chunk * q
        place = chunk & 1
        kinds.store(ahead)
        remains = remains_ahead
        ahead = load_terms(terms, numbers, start + q, end, length, q)
        remains_ahead = gl.load(terms + 2 * length + gl.minimum(start + 2 * q, end) - 1)
        states.store(state.to(dtype))
        fence_async_shared()
        mbarrier.wait(query_arrived.index(0), place)
        found = gl.zeros([q, p], gl.float32, wide)
        found = warpgroup_mma(query.index(0), states, found, use_acc=False, is_async=True)
        row = kinds.slice(0, q).load(gl.SliceLayout(1, square))
        column = kinds.slice(q, q).load(gl.SliceLayout(0, square))
        # Bounded above the diagonal, where nothing is read and it could overflow.
        weights = exp2(gl.minimum(row[:, None] - column[None, :], _WEIGHT_POWER_MAX))
        weights = (weights * scores.index(0).load(square).to(gl.float32)).to(dtype)
        found = warpgroup_mma_wait(0, deps=[found])
        fetch(keys_of, scores_of, query, scores, query_arrived, first, chunk + 1, chunks, c_column, s_column, 1)
        found = found * kinds.slice(2 * q, q).load(gl.SliceLayout(1, wide))[:, None]
        mbarrier.wait(arrived.index(place), (chunk >> 1) & 1)
        found = warpgroup_mma(weights, values.index(place), found, is_async=True)
        to_end = kinds.slice(3 * q, q).load(gl.SliceLayout(1, by_rows))
        update = values.index(place).load(by_rows).to(gl.float32) * to_end[:, None]
        updates.store(update.to(dtype))
        fence_async_shared()
        updated = warpgroup_mma(keys.index(place).permute((1, 0)), updates, state * remains, is_async=True)
        found, weights = warpgroup_mma_wait(1, deps=[found, weights])  # their registers are read until then
        found += values.index(place).load(wide).to(gl.float32) * skipped
        if gates_of is not None:
            mbarrier.wait(gates_arrived.index(0), place)
            found *= silu(gates.index(0).load(wide).to(gl.float32))
            fetch(gates_of, None, gates, None, gates_arrived, first, chunk + 1, chunks, x_column, 0, 1)
            token = start + sum_token
            gl.store(squares + head.to(gl.int64) * length + token, gl.sum(found * found, 1), mask=token < end)
        places = outputs + start.to(gl.int64) * (heads * p)
        staged = states.slice(0, q)  # the state there was read
        staged.store(found.to(dtype))
        gl.store(places, staged.load(by_rows), mask=(start + row_token < end)[:, None])
        state = warpgroup_mma_wait(0, deps=[updated])
        fetch(keys_of, values_of, keys, values, arrived, first, chunk + 2, chunks, b_column, x_column, 2)
    if segment == segments - 1:
        gl.store(last + head.to(gl.int64) * p * n + inside, state)
    mbarrier.invalidate(arrived.index(0))
    mbarrier.invalidate(arrived.index(1))
    mbarrier.invalidate(query_arrived.index(0))
    mbarrier.invalidate(gates_arrived.index(0))


@gluon.jit
def fetch(
    one_of: tma.tensor_descriptor,
    other_of: tma.tensor_descriptor,  # or None
    one: gl.shared_memory_descriptor,
    other: gl.shared_memory_descriptor,  # or None
    arrived: gl.shared_memory_descriptor,
    first: gl.tensor,
    chunk: gl.tensor,
    chunks: gl.tensor,
    one_column: gl.tensor,
    other_column: gl.tensor,
    places: gl.constexpr,
) -> None:
    """Begin to fetch one or two tiles of a chunk of a segment, if it has that chunk, to one of some places."""
    place, wanted = chunk % places, chunk < chunks
    tiles: gl.constexpr = one_of.block_shape[1] + (0 if other_of is None else other_of.block_shape[1])
    q: gl.constexpr = one_of.block_shape[0]
    start, barrier = first + chunk * q, arrived.index(place)
    mbarrier.expect(barrier, q * tiles * (one_of.dtype.primitive_bitwidth // 8), pred=wanted)
    tma.async_copy_global_to_shared(one_of, [start, one_column], barrier, one.index(place), pred=wanted)
    if other_of is not None:
        tma.async_copy_global_to_shared(other_of, [start, other_column], barrier, other.index(place), pred=wanted)


@gluon.jit
def load_terms(
    terms: gl.tensor, numbers: gl.tensor, start: gl.tensor, end: gl.tensor, length: gl.tensor, q: gl.constexpr
) -> gl.tensor:
    """Load all four terms of a chunk's tokens, one kind after the other; past a segment's end, those of nothing."""
    kind, token = numbers // q, start + numbers % q
    return gl.load(terms + kind * length + token, mask=token < end, other=gl.where(kind == 0, _NOTHING, 0.0))


@gluon.jit
def exp2(x: gl.tensor) -> gl.tensor:
    """Give 2 to the power of float32 ``x``; what is smaller than any normal number is zero."""
    return gl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def silu(x: gl.tensor) -> gl.tensor:
    """Give ``x sigmoid(x)`` of float32 ``x``."""
    half = 0.5 * x
    bent = gl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [half], dtype=gl.float32, is_pure=True, pack=1)
    return half + half * bent
