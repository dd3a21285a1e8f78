"""The scan of Mamba-2 for training on a GPU: what ``encoder/scan.py`` computes, in a few kernels of Triton.

In plain torch the products of each chunk go through memory, and the gradient keeps most of them. Here they stay in
registers: forward and backward pass read their inputs once and keep one state a chunk. To ``torch.compile`` both are
operators that it does not look into; ``encoder/kernels/training_mixer.py`` has them inside a larger one. Letters as in
``encoder/scan.py``, and ``s`` segments (of ``encoder/kernels/training_scan_kernels.py``, which is imported at the first
call only: it needs Triton).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_SIZE = 64
# Warps and stages of the software pipeline: of a program that reads forwards, and of one that reads backwards.
FORWARD_LAUNCH = {"num_warps": 4, "num_stages": 3}
BACKWARD_LAUNCH = {"num_warps": 4, "num_stages": 3}

_CHUNK_SIZE_MIN = 16  # a side of the smallest product on tensor cores
_WIDTH_MAX = 128  # of p and n: the state must fit in registers
_PROGRAMS = 768  # a few for each multiprocessor of a large device
_SEGMENT_CHUNKS_MIN = 4  # shorter segments cost more than they bring
_CARRY_BLOCK = 256
_SUM_TOKENS = 32
_TRITON_INSTALLED = find_spec("triton") is not None


def covers(values: Tensor, channels: int, d_state: int) -> bool:
    """Say whether :func:`training_scan` can and should scan heads of some channels with states of ``d_state``.

    ``values`` are what it would read. Float32 is better off in plain torch, where its products are not split into tiles
    for tensor cores.
    """
    widths = all(_CHUNK_SIZE_MIN <= width <= _WIDTH_MAX and not width & (width - 1) for width in (channels, d_state))
    return values.is_cuda and _TRITON_INSTALLED and values.dtype in (torch.bfloat16, torch.float16) and widths


def training_scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b_in: Tensor,
    c_out: Tensor,
    d: Tensor,
    state: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan as :func:`encoder.scan.reference_scan` does, and add ``d x``; differentiable once in all tensors.

    Shapes: ``x (b, l, h, p)``, ``dt (b, l, h)`` (after softplus), ``a`` and ``d (h)``, ``b_in`` and ``c_out``
    ``(b, l, g, n)``, ``state (b, h, p, n)``, ``seq_idx (b, l)`` int32; ``x``, ``b_in`` and ``c_out`` have
    one dtype, the others float32. ``p`` and ``n`` are powers of two from 16 to 128. Returns ``y`` like ``x`` and the
    last state ``(b, h, p, n)`` float32.
    """
    inputs = (x, dt, a, b_in, c_out, d) if state is None else (x, dt, a, b_in, c_out, d, state)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    y, last, _ = _scan(x, dt, a, b_in, c_out, d, state, seq_idx, keep, chunk_size_for(x.shape[1]))
    return y, last


def chunk_size_for(length: int) -> int:
    """Give the chunk size for a length: a short query is one short chunk."""
    size = _CHUNK_SIZE_MIN
    while size < min(length, CHUNK_SIZE):
        size *= 2
    return size


class _Cut(NamedTuple):
    """How the rows are cut into segments of whole chunks; ``(b, s, h)`` programs read them."""

    rows: int
    segments: int
    heads: int
    lengths: tuple[int, ...]  # as the kernels take them: l, tokens of a segment, s, h, h / g
    widths: dict[str, int]  # the kernels' constants

    @classmethod
    def of(cls, x: Tensor, b_in: Tensor, chunk_size: int) -> _Cut:
        rows, length, heads, channels = x.shape
        chunks = -(-length // chunk_size)
        most = max(1, chunks // _SEGMENT_CHUNKS_MIN)
        segment_chunks = -(-chunks // min(-(-_PROGRAMS // (rows * heads)), most))
        segments = -(-chunks // segment_chunks)
        lengths = (length, segment_chunks * chunk_size, segments, heads, heads // b_in.shape[2])
        return cls(rows, segments, heads, lengths, {"q": chunk_size, "p": channels, "n": b_in.shape[3]})

    @property
    def programs(self) -> int:
        return self.rows * self.segments * self.heads


@torch.library.custom_op(
    "mamba_search::scan",
    mutates_args=(),
    schema="(Tensor x, Tensor dt, Tensor a, Tensor b_in, Tensor c_out, Tensor d, Tensor? state, Tensor? seq_idx,"
    " bool keep, int chunk_size) -> (Tensor, Tensor, Tensor)",
)
def _scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b_in: Tensor,
    c_out: Tensor,
    d: Tensor,
    state: Tensor | None,
    seq_idx: Tensor | None,
    keep: bool,  # noqa: FBT001 - operators have no keywords in their autograd formulas
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return scan_forward(x, dt, a, b_in, c_out, d, state, seq_idx, keep=keep, chunk_size=chunk_size)


@_scan.register_fake
def _(
    x: Tensor,
    _dt: Tensor,
    _a: Tensor,
    b_in: Tensor,
    _c_out: Tensor,
    _d: Tensor,
    _state: Tensor | None,
    _seq_idx: Tensor | None,
    keep: bool,  # noqa: FBT001
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_outputs(x, b_in, chunk_size, keep=keep)


@torch.library.custom_op(
    "mamba_search::scan_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor? dlast, Tensor x, Tensor dt, Tensor a, Tensor b_in, Tensor c_out, Tensor d,"
    " Tensor? seq_idx, Tensor kept, bool from_state, int chunk_size)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _scan_backward(
    dy: Tensor,
    dlast: Tensor | None,
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b_in: Tensor,
    c_out: Tensor,
    d: Tensor,
    seq_idx: Tensor | None,
    kept: Tensor,
    from_state: bool,  # noqa: FBT001 - operators have no keywords in their autograd formulas
    chunk_size: int,
) -> tuple[Tensor, ...]:
    dx = x.new_empty(x.shape)
    return dx, *scan_backward(
        dy, dlast, x, dt, a, b_in, c_out, d, seq_idx, kept, dx, from_state=from_state, chunk_size=chunk_size
    )


@_scan_backward.register_fake
def _(
    _dy: Tensor,
    _dlast: Tensor | None,
    x: Tensor,
    _dt: Tensor,
    _a: Tensor,
    b_in: Tensor,
    _c_out: Tensor,
    _d: Tensor,
    _seq_idx: Tensor | None,
    _kept: Tensor,
    from_state: bool,  # noqa: FBT001
    chunk_size: int,
) -> tuple[Tensor, ...]:
    segments = _Cut.of(x, b_in, chunk_size).segments
    return x.new_empty(x.shape), *_empty_gradients(x, b_in, segments, from_state=from_state)


def _keep_for_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
    *tensors, state, seq_idx, _, chunk_size = inputs
    ctx.save_for_backward(*tensors, seq_idx, output[2])
    ctx.from_state = state is not None and state.requires_grad
    ctx.chunk_size = chunk_size
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    x, dt, a, b_in, c_out, d, seq_idx, kept = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(x)
    dx, ddt, db, dc, da, dd, dstate = _scan_backward(
        dy, dlast, x, dt, a, b_in, c_out, d, seq_idx, kept, ctx.from_state, ctx.chunk_size
    )
    # A head's own, then summed: atomic additions would come in another order each time.
    db, dc = (gradient.unflatten(2, (b_in.shape[2], -1)).sum(3) for gradient in (db, dc))  # (b, l, g, n)
    dstate = dstate if ctx.from_state else None
    return dx, ddt, da.sum((0, 1)), db, dc, dd.sum((0, 1)), dstate, None, None, None


_scan.register_autograd(_gradients, setup_context=_keep_for_gradient)


def scan_forward(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b_in: Tensor,
    c_out: Tensor,
    d: Tensor,
    state: Tensor | None,
    seq_idx: Tensor | None,
    *,
    keep: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the last state, and the states before each chunk ``(b, c, h, n, p)`` if they are to be kept.

    Not differentiable itself. Inputs as in :func:`training_scan`.
    """
    from encoder.kernels import training_scan_kernels as kernels  # needs Triton

    x, b_in, c_out = _by_tokens(x), _by_tokens(b_in), _by_tokens(c_out)
    dt, a, d = dt.contiguous(), a.contiguous(), d.contiguous()
    before = None if state is None else state.contiguous()
    marks = None if seq_idx is None else seq_idx.contiguous()
    cut = _Cut.of(x, b_in, chunk_size)
    y, last, kept = empty_outputs(x, b_in, chunk_size, keep=keep)
    with torch.cuda.device_of(x):  # Triton starts kernels on the current device
        if cut.segments > 1:
            before = _bounds(x, b_in, dt, a, marks, before, cut, reverse=False)
        kernels.scan_forward[(cut.programs,)](
            *_strided(x),
            *_strided(b_in),
            *_strided(c_out),
            *(dt, a, d, marks, before, y, last, kept if keep else None),
            *cut.lengths,
            **cut.widths,
            **FORWARD_LAUNCH,
        )
    return y, last, kept


def scan_backward(
    dy: Tensor,
    dlast: Tensor | None,
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b_in: Tensor,
    c_out: Tensor,
    d: Tensor,
    seq_idx: Tensor | None,
    kept: Tensor,
    dx: Tensor,
    *,
    from_state: bool,
    chunk_size: int,
) -> tuple[Tensor, ...]:
    """Write the gradient of x to ``dx (b, l, h, p)``, which may be a view whose tokens have no gaps.

    Return those of dt, B and C ``(b, l, h, n)``, a and d ``(b, s, h)``, and the first state.
    """
    from encoder.kernels import training_scan_gradient as kernels  # needs Triton

    dy, x, b_in, c_out = _by_tokens(dy), _by_tokens(x), _by_tokens(b_in), _by_tokens(c_out)
    dt, a, d = dt.contiguous(), a.contiguous(), d.contiguous()
    after = None if dlast is None else dlast.float().contiguous()
    marks = None if seq_idx is None else seq_idx.contiguous()
    cut = _Cut.of(x, b_in, chunk_size)
    outputs = _empty_gradients(x, b_in, cut.segments, from_state=from_state)
    with torch.cuda.device_of(x):
        if cut.segments > 1:
            after = _bounds(dy, c_out, dt, a, marks, after, cut, reverse=True)
        kernels.scan_backward[(cut.programs,)](
            *_strided(dy),
            *_strided(x),
            *_strided(b_in),
            *_strided(c_out),
            *(dt, a, d, marks, kept, after),
            *_strided(dx),
            *(*outputs[:-1], outputs[-1] if from_state else None),
            *cut.lengths,
            **cut.widths,
            **BACKWARD_LAUNCH,
        )
    return outputs


def sum_heads(of_heads: Tensor, out: Tensor) -> None:
    """Sum what the heads of a group have, ``(b, l, h, n)``, into ``out (b, l, g, n)``.

    ``out`` may be a view into rows ``(b, l, ...)`` without gaps between their tokens.
    """
    from encoder.kernels import training_scan_gradient as kernels  # needs Triton

    heads, size = of_heads.shape[2:]
    groups = out.shape[2]
    out = out.view(-1, groups, size)  # a row of one token does not tell its stride
    with torch.cuda.device_of(out):
        kernels.sum_heads[-(-len(out) // _SUM_TOKENS), groups](
            *(of_heads, out, out.stride(0), len(out)),
            per_group=heads // groups,
            n=size,
            read=_SUM_TOKENS,
            num_warps=4,
        )


def empty_outputs(x: Tensor, b_in: Tensor, chunk_size: int, *, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Make what :func:`scan_forward` returns, to be filled."""
    batch, length, heads, channels = x.shape
    size = b_in.shape[3]
    last = x.new_empty(batch, heads, channels, size, dtype=torch.float32)
    kept = x.new_empty((batch, -(-length // chunk_size), heads, size, channels) if keep else 0)
    return x.new_empty(x.shape), last, kept


def _empty_gradients(x: Tensor, b_in: Tensor, segments: int, *, from_state: bool) -> tuple[Tensor, ...]:
    batch, length, heads, channels = x.shape
    size = b_in.shape[3]
    return (
        x.new_empty(batch, length, heads, dtype=torch.float32),
        x.new_empty(batch, length, heads, size),
        x.new_empty(batch, length, heads, size),
        x.new_empty(batch, segments, heads, dtype=torch.float32),
        x.new_empty(batch, segments, heads, dtype=torch.float32),
        x.new_empty((batch, heads, channels, size) if from_state else 0, dtype=torch.float32),
    )


def _bounds(
    values: Tensor,
    keys: Tensor,
    dt: Tensor,
    a: Tensor,
    marks: Tensor | None,
    first: Tensor | None,
    cut: _Cut,
    *,
    reverse: bool,
) -> Tensor:
    """Give the states before all segments ``(b, s, h, p, n)``; reversed, the gradients of the states after them."""
    from encoder.kernels import training_scan_kernels as kernels  # needs Triton

    size = cut.widths["p"] * cut.widths["n"]
    decays = dt.new_empty(cut.rows, cut.segments, cut.heads)
    states = dt.new_empty(*decays.shape, cut.widths["p"], cut.widths["n"])
    kernels.segment_states[(cut.programs,)](
        *_strided(values),
        *_strided(keys),
        *(dt, a, marks, states, decays),
        *cut.lengths,
        reverse=reverse,
        **cut.widths,
        **FORWARD_LAUNCH,
    )
    kernels.carry_states[(cut.rows * cut.heads, size // _CARRY_BLOCK)](
        *(states, decays, first, cut.segments, cut.heads), reverse=reverse, size=size, block=_CARRY_BLOCK, num_warps=4
    )
    return states


def _by_tokens(tensor: Tensor) -> Tensor:
    """Give a tensor whose tokens are each laid out without gaps, wherever they stand: itself, if it can be."""
    return tensor if tensor[0, 0].is_contiguous() else tensor.contiguous()


def _strided(tensor: Tensor) -> tuple[Tensor, int, int]:
    return tensor, tensor.stride(0), tensor.stride(1)
