"""Gluon kernel: the scan of ``encoder/kernels/fused/scan.py`` for Hopper, copies and products begun early.

The same numbers of the same arguments, but for the form of the tiles, and a program reads two heads of a group. Each
head has a group of four warps to itself, and one more warp fetches: a chunk's B, C and scores once for both heads, a
chunk ahead. What Triton's own pipeliner leaves little choice in happens here as it hides best: weights are found while
the first product runs, gates are applied while the state is updated. A fence for the products' unit waits for loads and
stores of global memory, too; so terms are loaded, and a chunk's output is stored, right behind the second fence, long
before the next. The layouts and barriers are those of Triton's Gluon; the algorithm's source is in ``scan.py``.

Letters as in ``encoder/scan.py``. Products are warpgroup products: 64 tokens, or places of a state, at once.
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

from encoder.kernels.fused.scan import COLUMN, FROM_START, NOTHING, TO_END, UNTIL, WEIGHT_POWER_MAX

HEADS = 2  # of a program
LAUNCH = {"num_warps": 4}  # of the first head; others are added
_CAPABILITY = 9  # of devices with these products: later ones have others
_READER_REGISTERS, _FETCHER_REGISTERS = gl.constexpr(232), gl.constexpr(24)  # of each thread
_KINDS = gl.constexpr(4)  # of terms


def covers(q: int, p: int, n: int, per_group: int, device: torch.device) -> bool:
    """Say whether the kernels read chunks of ``q`` tokens and heads of these sizes, and run on a device."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != _CAPABILITY:
        return False
    return (q, p) == (64, 64) and n in (64, 128) and per_group % HEADS == 0


def describe(x: Tensor, sides: list[int]) -> TensorDescriptor:
    """Describe a matrix of bfloat16 in tiles of these sides, as the kernels take it."""
    return TensorDescriptor.from_tensor(x, sides, gl.NVMMASharedLayout.get_default_for(sides, gl.bfloat16))


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
    power: gl.tensor,  # float32: y is multiplied by 2 ** power, which is to be a whole number
    heads: gl.constexpr,
    per_group: gl.constexpr,
    q: gl.constexpr,
    p: gl.constexpr,
    n: gl.constexpr,
) -> None:
    """Scan two heads, as :func:`encoder.kernels.fused.scan.scan` does one."""
    dtype: gl.constexpr = values_of.dtype
    gated: gl.constexpr = gates_of is not None
    programs: gl.constexpr = heads // 2
    segment, head = gl.load(order + gl.program_id(0) // programs), gl.program_id(0) % programs * 2
    first, end = gl.load(bounds + segment), gl.load(bounds + segment + 1)
    # Two chunks' tiles, of x and z for each head; then what each head works in.
    tiles = (
        gl.allocate_shared_memory(dtype, [2, q, n], keys_of.layout),  # B
        gl.allocate_shared_memory(dtype, [2, q, n], keys_of.layout),  # C
        gl.allocate_shared_memory(dtype, [2, q, q], scores_of.layout),
        gl.allocate_shared_memory(dtype, [4, q, p], values_of.layout),  # x
        gl.allocate_shared_memory(dtype, [4, q, p], values_of.layout),  # z
    )
    states = gl.allocate_shared_memory(dtype, [2, n, p], gl.NVMMASharedLayout.get_default_for([n, p], dtype))
    updates = gl.allocate_shared_memory(dtype, [2, q, p], values_of.layout)
    stored: gl.constexpr = y.dtype.element_ty
    rows = gl.allocate_shared_memory(stored, [2, q, p], gl.NVMMASharedLayout.get_default_for([q, p], stored))
    kinds = gl.allocate_shared_memory(gl.float32, [2, _KINDS * q], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    mbarrier.init(full.index(0), count=1)
    mbarrier.init(full.index(1), count=1)
    mbarrier.init(empty.index(0), count=2)
    mbarrier.init(empty.index(1), count=2)
    fence_async_shared()
    own = (states, updates, rows, kinds)
    arrays = (terms, skip, before, y, squares, last)
    numbers = (first, end, segment, head, length, segments, power)
    gl.warp_specialize(
        [
            (read_first, (tiles, full, empty, own, arrays, numbers, heads, gated)),
            (read_second, (tiles, full, empty, own, arrays, numbers, heads, gated)),
            (fetch, (values_of, keys_of, gates_of, scores_of, tiles, full, empty, first, end, head, heads, per_group)),
        ],
        [4, 1],
        [_READER_REGISTERS, _FETCHER_REGISTERS],
    )


@gluon.jit
def fetch(
    values_of: tma.tensor_descriptor,
    keys_of: tma.tensor_descriptor,
    gates_of: tma.tensor_descriptor,
    scores_of: tma.tensor_descriptor,
    tiles: gl.tuple,
    full: gl.shared_memory_descriptor,
    empty: gl.shared_memory_descriptor,
    first: gl.tensor,
    end: gl.tensor,
    head: gl.tensor,
    heads: gl.constexpr,
    per_group: gl.constexpr,
) -> None:
    """Fetch all chunks of a segment, each as soon as both heads have done with the chunk before the last."""
    keys, query, scores, values, gates = tiles
    q: gl.constexpr = keys_of.block_shape[0]
    n: gl.constexpr = keys_of.block_shape[1]
    p: gl.constexpr = values_of.block_shape[1]
    columns: gl.constexpr = 2 * n + q + (2 if gates_of is None else 4) * p
    group = head // per_group
    b_column = heads * p + group * n
    c_column = b_column + heads // per_group * n
    for chunk in range((end - first + q - 1) // q):
        place, start = chunk & 1, first + chunk * q
        mbarrier.wait(empty.index(place), (chunk >> 1) & 1 ^ 1)
        arrived = full.index(place)
        mbarrier.expect(arrived, q * columns * (keys_of.dtype.primitive_bitwidth // 8))
        tma.async_copy_global_to_shared(keys_of, [start, c_column], arrived, query.index(place))
        tma.async_copy_global_to_shared(scores_of, [start, group * q], arrived, scores.index(place))
        tma.async_copy_global_to_shared(values_of, [start, head * p], arrived, values.index(place * 2))
        tma.async_copy_global_to_shared(values_of, [start, head * p + p], arrived, values.index(place * 2 + 1))
        tma.async_copy_global_to_shared(keys_of, [start, b_column], arrived, keys.index(place))
        if gates_of is not None:
            tma.async_copy_global_to_shared(gates_of, [start, head * p], arrived, gates.index(place * 2))
            tma.async_copy_global_to_shared(gates_of, [start, head * p + p], arrived, gates.index(place * 2 + 1))


@gluon.jit
def read_first(
    tiles: gl.tuple,
    full: gl.shared_memory_descriptor,
    empty: gl.shared_memory_descriptor,
    own: gl.tuple,
    arrays: gl.tuple,
    numbers: gl.tuple,
    heads: gl.constexpr,
    gated: gl.constexpr,
) -> None:
    """Read the first of two heads: a group of warps has a function of its own."""
    read(tiles, full, empty, own, arrays, numbers, heads, gated, 0)


@gluon.jit
def read_second(
    tiles: gl.tuple,
    full: gl.shared_memory_descriptor,
    empty: gl.shared_memory_descriptor,
    own: gl.tuple,
    arrays: gl.tuple,
    numbers: gl.tuple,
    heads: gl.constexpr,
    gated: gl.constexpr,
) -> None:
    """Read the second."""
    read(tiles, full, empty, own, arrays, numbers, heads, gated, 1)


@gluon.jit
def read(
    tiles: gl.tuple,
    full: gl.shared_memory_descriptor,
    empty: gl.shared_memory_descriptor,
    own: gl.tuple,
    arrays: gl.tuple,
    numbers: gl.tuple,
    heads: gl.constexpr,
    gated: gl.constexpr,
    which: gl.constexpr,
) -> None:
    """Scan one of two heads over a segment."""
    states, updates, rows, kinds = own[0].index(which), own[1].index(which), own[2].index(which), own[3].index(which)
    terms, skip, before, y, squares, last = arrays
    first, end, segment, head, length, segments, power = numbers
    q: gl.constexpr = updates.shape[0]
    p: gl.constexpr = updates.shape[1]
    n: gl.constexpr = states.shape[0]
    dtype: gl.constexpr = updates.dtype
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, p, 16])  # (q, p), and (n, p) of the state
    square: gl.constexpr = gl.DotOperandLayout(0, wide, 2)  # (q, q) in registers, as a first factor
    by_rows: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])  # (q, p) as memory likes it
    flat: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])  # (4 q)
    head += which
    terms += 4 * head.to(gl.int64) * length
    factor = exp2(power)
    skipped = gl.load(skip + head) * factor
    number = gl.arange(0, _KINDS * q, flat)
    ahead = load_terms(terms, number, first, end, length, q)
    remains = gl.load(terms + FROM_START * length + gl.minimum(first + q, end) - 1)
    inside = gl.arange(0, n, gl.SliceLayout(1, wide))[:, None] + gl.arange(0, p, gl.SliceLayout(0, wide))[None, :] * n
    state = gl.zeros([n, p], gl.float32, wide)
    if before is not None:
        state += gl.load(before + (segment * heads + head).to(gl.int64) * p * n + inside)
    sums = gl.zeros([q], gl.float32, gl.SliceLayout(1, wide))
    chunks = (end - first + q - 1) // q
    for chunk in range(chunks):
        start, place = first + chunk * q, chunk & 1
        kinds.store(ahead)
        states.store(state.to(dtype))
        fence_async_shared()
        mbarrier.wait(full.index(place), (chunk >> 1) & 1)
        found = gl.zeros([q, p], gl.float32, wide)
        found = warpgroup_mma(tiles[1].index(place), states, found, use_acc=False, is_async=True)
        row = kinds.slice(UNTIL * q, q).load(gl.SliceLayout(1, square)) + power
        column = kinds.slice(COLUMN * q, q).load(gl.SliceLayout(0, square))
        # Bounded above the diagonal, where nothing is read and it could overflow.
        weights = exp2(gl.minimum(row[:, None] - column[None, :], WEIGHT_POWER_MAX))
        weights = (weights * tiles[2].index(place).load(square).to(gl.float32)).to(dtype)
        found = warpgroup_mma_wait(0, deps=[found])
        found = found * (kinds.slice(FROM_START * q, q).load(gl.SliceLayout(1, wide)) * factor)[:, None]
        values = tiles[3].index(place * 2 + which)
        found = warpgroup_mma(weights, values, found, is_async=True)
        to_end = kinds.slice(TO_END * q, q).load(gl.SliceLayout(1, by_rows))
        update = values.load(by_rows).to(gl.float32) * to_end[:, None]
        updates.store(update.to(dtype))
        fence_async_shared()
        updated = warpgroup_mma(tiles[0].index(place).permute((1, 0)), updates, state * remains, is_async=True)
        ahead = load_terms(terms, number, start + q, end, length, q)
        remains = gl.load(terms + FROM_START * length + gl.minimum(start + 2 * q, end) - 1)
        store_rows(y, squares, rows, sums, head, start - q, first, end, length, heads)
        found, weights = warpgroup_mma_wait(1, deps=[found, weights])  # their registers are read until then
        found += values.load(wide).to(gl.float32) * skipped
        if gated:
            found *= silu(tiles[4].index(place * 2 + which).load(wide).to(gl.float32))
            sums = gl.sum(found * found, 1)
        rows.store(found.to(rows.dtype))
        state = warpgroup_mma_wait(0, deps=[updated])
        mbarrier.arrive(empty.index(place), count=1)
    store_rows(y, squares, rows, sums, head, first + (chunks - 1) * q, first, end, length, heads)
    if segment == segments - 1:
        gl.store(last + head.to(gl.int64) * p * n + inside, state)


@gluon.jit
def store_rows(
    y: gl.tensor,
    squares: gl.tensor,
    rows: gl.shared_memory_descriptor,
    sums: gl.tensor,
    head: gl.tensor,
    start: gl.tensor,
    first: gl.tensor,
    end: gl.tensor,
    length: gl.tensor,
    heads: gl.constexpr,
) -> None:
    """Store a chunk's output, and its sums of squares, as far as the segment has that chunk."""
    q: gl.constexpr = rows.shape[0]
    p: gl.constexpr = rows.shape[1]
    each: gl.constexpr = 128 // rows.dtype.primitive_bitwidth  # values of a thread: 16 bytes
    by_rows: gl.constexpr = gl.BlockedLayout([1, each], [32 * each // p, p // each], [4, 1], [1, 0])
    token = start + gl.arange(0, q, gl.SliceLayout(1, by_rows))
    channel = gl.arange(0, p, gl.SliceLayout(0, by_rows))
    places = y + token.to(gl.int64)[:, None] * (heads * p) + (head * p + channel)[None, :]
    gl.store(places, rows.load(by_rows), mask=((token >= first) & (token < end))[:, None])
    if squares is not None:
        token = start + gl.arange(0, q, sums.type.layout)
        gl.store(squares + head.to(gl.int64) * length + token, sums, mask=(token >= first) & (token < end))


@gluon.jit
def load_terms(
    terms: gl.tensor, number: gl.tensor, start: gl.tensor, end: gl.tensor, length: gl.tensor, q: gl.constexpr
) -> gl.tensor:
    """Load all four terms of a chunk's tokens, one kind after the other; past a segment's end, those of nothing."""
    kind, token = number // q, start + number % q
    return gl.load(terms + kind * length + token, mask=token < end, other=gl.where(kind == UNTIL, NOTHING, 0.0))


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
