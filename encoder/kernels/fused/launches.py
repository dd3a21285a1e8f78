"""How kernels that layers of both kinds share are launched. Letters as in ``encoder/mamba.py``; tokens in one row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn

from encoder.kernels.fused import convolution, residual

CONVOLUTION_LAUNCH = {"run": 32, "runs": 2, "block": 256, "num_warps": 4}
# Of so few tokens each program walks four, and all of them do at once: a query waits for one load, not for eight.
FEW_TOKENS = 512
CONVOLUTION_LAUNCH_FEW = CONVOLUTION_LAUNCH | {"run": 4, "runs": 1}
ROW_VALUES = 4096  # of whole rows, that a program holds


def keep(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Keep weights that kernels read beside the products': float32, without gaps, and no part of a checkpoint."""
    for name, value in weights.items():
        module.register_buffer(name, value.detach().float().contiguous(), persistent=False)


def convolution_weights(conv1d: nn.Conv1d) -> Tensor:
    """Give the weights as :func:`convolve` reads them: ``(4, f)``."""
    return F.pad(conv1d.weight[:, 0].T, (0, 0, convolution.TAPS - conv1d.kernel_size[0], 0))


def convolve(
    projected: Tensor,
    offset: int,
    kernel: Tensor,
    bias: Tensor,
    marks: Tensor | None,
    tail: Tensor | None,
    convolved: Tensor,
    steps: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    taps: int,
    limit: Tensor | None,
) -> Tensor:
    """Fill ``convolved (l, f)`` from the columns of ``projected (l, w)`` that begin at ``offset``, after ``tail``.

    And ``steps (h, l)``, if given, from the columns behind those. ``tail``, None or ``(1, k - 1, f)``, has the inputs
    before the row; the last inputs are returned, ``(k - 1, f)``. ``limit`` is a packing's.
    """
    width, length, heads = kernel.shape[1], len(projected), 0 if steps is None else len(steps)
    launch = CONVOLUTION_LAUNCH_FEW if length <= FEW_TOKENS else CONVOLUTION_LAUNCH
    after = kernel.new_empty(taps - 1, width)
    columns = -(-width // launch["block"]) + (0 if steps is None else 1)
    convolution.convolve[-(-length // (launch["run"] * launch["runs"])), columns](
        *(projected, projected.stride(0), kernel, bias, dt_bias, marks),
        None if tail is None else tail[0].float().contiguous(),
        *(convolved, steps, after, length, limit),
        offset=offset,
        f=width,
        h=heads,
        taps=taps,
        block_h=triton.next_power_of_2(max(heads, 1)),
        **launch,
    )
    return after


def begin_residual(
    embedding: Tensor, ids: Tensor, stream: Tensor, normed: Tensor, *, eps: float, spread: float
) -> None:
    """Fill the residual ``stream (l, d)`` with rows of ``embedding (v, d)``, and ``normed`` with it, normed."""
    length, width = stream.shape
    block = triton.next_power_of_2(width)
    read = max(1, ROW_VALUES // block)
    residual.begin_residual[(-(-length // read),)](
        *(embedding, ids, stream, normed, length),
        eps=eps,
        spread=spread,
        d=width,
        read=read,
        block=block,
        num_warps=4,
    )


def add_to_residual(
    stream: Tensor,
    out: Tensor,
    normed: Tensor,
    *,
    eps: float,
    spread: float,
    squares: Tensor | None = None,
    inner: int = 1,
    inner_eps: float = 0.0,
) -> None:
    """Add ``out (l, d)`` to the residual ``stream (l, d)``, and norm that into ``normed``, times ``spread``.

    With ``squares (h, l)``, ``out`` is first divided by the root of their mean over ``inner`` channels, and
    ``inner_eps``.
    """
    length, width = stream.shape
    block, heads = triton.next_power_of_2(width), 1 if squares is None else len(squares)
    read = max(1, ROW_VALUES // block)
    residual.add_to_residual[(-(-length // read),)](
        *(stream, out, squares, normed, length, inner_eps),
        inner=inner,
        eps=eps,
        spread=spread,
        d=width,
        h=heads,
        read=read,
        block=block,
        block_h=triton.next_power_of_2(heads),
        num_warps=4,
    )


def pick(x: Tensor, places: Tensor) -> Tensor:
    """Pick rows; torch picks no 8-bit floats, but bytes."""
    return x[places] if x.element_size() > 1 else x.view(torch.uint8)[places].view(x.dtype)
