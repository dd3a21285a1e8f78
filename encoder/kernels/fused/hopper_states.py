"""Gluon kernel: ``segment_states`` of ``encoder/kernels/fused/carrying.py`` for Hopper, with copies begun chunks ahead.

The same numbers of the same arguments, but for the form of the tiles. Letters as in ``encoder/scan.py``; how barriers
and products are used is said in ``encoder/kernels/fused/hopper_scan.py``.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from encoder.kernels.fused.scan import FROM_START, TO_END

LAUNCH = {"num_warps": 4}
_AHEAD = gl.constexpr(3)  # chunks that shared memory has place for, with two programs on a multiprocessor


@gluon.jit(do_not_specialize=["length"], do_not_specialize_on_alignment=["bounds", "carried", "order"])
def segment_states(
    values_of: tma.tensor_descriptor,  # convolved (l, f) in tiles (q, 2 p): x (h, p)
    keys_of: tma.tensor_descriptor,  # the same in tiles (q, n): B (g, n)
    terms: gl.tensor,  # (h, 4, l) of chunk_terms
    bounds: gl.tensor,  # (s + 1)
    carried: gl.tensor,  # (s + 1): 1 where a segment reads on within a sequence
    order: gl.tensor,  # (s): segments, as they are read
    added: gl.tensor,  # out (s, h, p, n)
    decays: gl.tensor,  # out (s, h)
    length: gl.tensor,
    heads: gl.constexpr,
    per_group: gl.constexpr,
    q: gl.constexpr,
    p: gl.constexpr,
    n: gl.constexpr,
) -> None:
    """Read two heads of a segment, as :func:`encoder.kernels.fused.carrying.segment_states`."""
    dtype: gl.constexpr = values_of.dtype
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 2 * p, 16])  # (n, 2 p)
    by_rows: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])  # (q, 2 p)
    flat: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])  # (2 q)
    programs: gl.constexpr = heads // 2
    segment, head = gl.load(order + gl.program_id(0) // programs), gl.program_id(0) % programs * 2
    if gl.load(carried + segment + 1) == 0:
        return
    first, end = gl.load(bounds + segment), gl.load(bounds + segment + 1)
    chunks = (end - first + q - 1) // q
    b_column, x_column = heads * p + head // per_group * n, head * p
    terms += 4 * head.to(gl.int64) * length
    from_start, from_start_other = terms + FROM_START * length, terms + (4 + FROM_START) * length
    keys = gl.allocate_shared_memory(dtype, [_AHEAD, q, n], keys_of.layout)
    values = gl.allocate_shared_memory(dtype, [_AHEAD, q, 2 * p], values_of.layout)
    updates = gl.allocate_shared_memory(dtype, [q, 2 * p], values_of.layout)
    to_ends = gl.allocate_shared_memory(gl.float32, [2 * q], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    arrived = gl.allocate_shared_memory(gl.int64, [_AHEAD, 1], mbarrier.MBarrierLayout())
    for number in gl.static_range(_AHEAD):
        mbarrier.init(arrived.index(number), count=1)
    fence_async_shared()
    for number in gl.static_range(_AHEAD):
        fetch(keys_of, values_of, keys, values, arrived, first, number, chunks, b_column, x_column)
    number = gl.arange(0, 2 * q, flat)
    ahead = load_to_ends(terms, number, first, end, length, q)
    until = gl.minimum(first + q, end) - 1
    remains, remains_other = gl.load(from_start + until), gl.load(from_start_other + until)
    column = gl.arange(0, 2 * p, gl.SliceLayout(0, wide))
    channel = gl.arange(0, 2 * p, gl.SliceLayout(0, by_rows))
    state = gl.zeros([n, 2 * p], gl.float32, wide)
    decay, decay_other = gl.to_tensor(1.0), gl.to_tensor(1.0)
    for chunk in range(chunks):
        start, place = first + chunk * q, chunk % _AHEAD
        to_ends.store(ahead)
        mbarrier.wait(arrived.index(place), (chunk // _AHEAD) & 1)
        to_end = to_ends.slice(0, q).load(gl.SliceLayout(1, by_rows))[:, None]
        to_end_other = to_ends.slice(q, q).load(gl.SliceLayout(1, by_rows))[:, None]
        to_end = gl.where((channel < p)[None, :], to_end, to_end_other)
        updates.store((values.index(place).load(by_rows).to(gl.float32) * to_end).to(dtype))
        fence_async_shared()
        state = state * gl.where(column < p, remains, remains_other)[None, :]
        updated = warpgroup_mma(keys.index(place).permute((1, 0)), updates, state, is_async=True)
        decay, decay_other = decay * remains, decay_other * remains_other
        ahead = load_to_ends(terms, number, start + q, end, length, q)
        until = gl.minimum(start + 2 * q, end) - 1
        remains, remains_other = gl.load(from_start + until), gl.load(from_start_other + until)
        state = warpgroup_mma_wait(0, deps=[updated])
        fetch(keys_of, values_of, keys, values, arrived, first, chunk + _AHEAD, chunks, b_column, x_column)
    place = (segment * heads + head).to(gl.int64)
    row = gl.arange(0, n, gl.SliceLayout(1, wide))
    gl.store(added + place * p * n + row[:, None] + column[None, :] * n, state)
    gl.store(decays + place, decay)
    gl.store(decays + place + 1, decay_other)


@gluon.jit
def fetch(
    keys_of: tma.tensor_descriptor,
    values_of: tma.tensor_descriptor,
    keys: gl.shared_memory_descriptor,
    values: gl.shared_memory_descriptor,
    arrived: gl.shared_memory_descriptor,
    first: gl.tensor,
    chunk: gl.tensor,
    chunks: gl.tensor,
    b_column: gl.tensor,
    x_column: gl.tensor,
) -> None:
    """Begin to fetch B and x of a chunk of a segment, if it has that chunk."""
    q: gl.constexpr = keys_of.block_shape[0]
    columns: gl.constexpr = keys_of.block_shape[1] + values_of.block_shape[1]
    place, wanted, start = chunk % _AHEAD, chunk < chunks, first + chunk * q
    barrier = arrived.index(place)
    mbarrier.expect(barrier, q * columns * (keys_of.dtype.primitive_bitwidth // 8), pred=wanted)
    tma.async_copy_global_to_shared(keys_of, [start, b_column], barrier, keys.index(place), pred=wanted)
    tma.async_copy_global_to_shared(values_of, [start, x_column], barrier, values.index(place), pred=wanted)


@gluon.jit
def load_to_ends(
    terms: gl.tensor, number: gl.tensor, start: gl.tensor, end: gl.tensor, length: gl.tensor, q: gl.constexpr
) -> gl.tensor:
    """Load what decays from a chunk's tokens to its end, of one head and then the other; zeros past the segment."""
    which, token = number // q, start + number % q
    return gl.load(terms + (4 * which + TO_END) * length + token, mask=token < end, other=0.0)
