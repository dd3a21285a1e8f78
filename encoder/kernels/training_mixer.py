"""What a Mamba-2 layer computes between its two projections, as one operator for training on a GPU.

Convolution, time steps, scan and gated norm, each in kernels of its own, forward and backward. Between separate
operators the gradients of the parts of in_proj's output would each be filled up with zeros to all of it, and added;
here every kernel writes to its place in one tensor. ``torch.compile`` does not look into the operator. Letters as in
``encoder/mamba.py``, and ``w`` the width of in_proj's output. Triton is needed at the first call only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from encoder.kernels import training_scan
from encoder.model_config import ModelConfig

_TAPS = 4  # encoder/kernels/training_conv.py is written for these


def covers(projected: Tensor, config: ModelConfig) -> bool:
    """Say whether :func:`mixer_core` can and should compute a layer of ``config`` from in_proj's output."""
    return (
        config.selective
        and config.d_conv == _TAPS
        and training_scan.covers(projected, config.d_inner // config.n_heads, config.d_state)
    )


class Parameters(NamedTuple):
    """A layer's own, all float32, but for its projections."""

    kernel: Tensor  # (f, k)
    bias: Tensor  # (f): of the convolution
    dt_bias: Tensor  # (h)
    a: Tensor  # (h), negative
    d: Tensor  # (h)
    norm: Tensor  # (e)


class _Sizes(NamedTuple):
    """The widths that the shapes of a layer's tensors tell, and the places of the parts of in_proj's output."""

    e: int
    f: int
    h: int
    g: int
    n: int
    chunk_size: int

    @classmethod
    def of(cls, projected: Tensor, own: Parameters, groups: int) -> _Sizes:
        e, f = len(own.norm), len(own.bias)
        chunk_size = training_scan.chunk_size_for(projected.shape[1])
        return cls(e, f, len(own.a), groups, (f - e) // (2 * groups), chunk_size)

    def parts(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cut in_proj's output or gradient into z ``(b, l, e)``, mixed ``(b, l, f)``, dt ``(b, l, h)`` and padding."""
        e, f, h = self.e, self.f, self.h
        return (
            projected[..., :e],
            projected[..., e : e + f],
            projected[..., e + f : e + f + h],
            projected[..., e + f + h :],
        )

    def convolved(self, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cut the convolution's output, or its gradient, into x ``(b, l, h, p)``, B and C ``(b, l, g, n)``."""
        x, b_in, c_out = tensor.split([self.e, self.g * self.n, self.g * self.n], dim=-1)
        shape = (self.g, self.n)
        return x.unflatten(-1, (self.h, -1)), b_in.unflatten(-1, shape), c_out.unflatten(-1, shape)


def mixer_core(
    projected: Tensor,
    own: Parameters,
    groups: int,
    eps: float,
    tail: Tensor | None = None,
    state: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what out_proj reads from ``projected (b, l, w)``, the output of in_proj: z, mixed, dt, any padding.

    ``tail (b, k - 1, f)`` in the same dtype and ``state (b, h, p, n)`` float32 are of the tokens before;
    ``seq_idx (b, l)`` is that of ``encoder/scan.py``, for rows that have no tail. Returns ``(b, l, e)`` and the new
    tail and state; differentiable once.
    """
    marks = None if seq_idx is None else seq_idx.int()
    inputs = (projected, *own, tail, state)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    y, after, last, *_ = _core(*inputs, marks, groups, eps, keep)
    return y, after, last


@torch.library.custom_op(
    "mamba_search::mixer_core",
    mutates_args=(),
    schema="(Tensor projected, Tensor kernel, Tensor bias, Tensor dt_bias, Tensor a, Tensor d, Tensor norm,"
    " Tensor? tail, Tensor? state, Tensor? seq_idx, int groups, float eps, bool keep)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _core(
    projected: Tensor,
    kernel: Tensor,
    bias: Tensor,
    dt_bias: Tensor,
    a: Tensor,
    d: Tensor,
    norm: Tensor,
    tail: Tensor | None,
    state: Tensor | None,
    seq_idx: Tensor | None,
    groups: int,
    eps: float,
    keep: bool,  # noqa: FBT001 - operators have no keywords in their autograd formulas
) -> tuple[Tensor, ...]:
    """Return output, tail and state, and for the gradient what was convolved, dt, y, the norm's scales, and states."""
    from encoder.kernels import training_conv, training_norm  # need Triton

    own = Parameters(kernel, bias, dt_bias, a, d, norm)
    sizes = _Sizes.of(projected, own, groups)
    projected = projected.contiguous()
    z, mixed, steps, _ = sizes.parts(projected)
    convolved = training_conv.convolve(mixed, kernel, bias, tail, seq_idx)
    dt = F.softplus(steps.float() + dt_bias)  # (b, l, h)
    x, b_in, c_out = sizes.convolved(convolved)
    y, last, kept = training_scan.scan_forward(
        x, dt, a, b_in, c_out, d, state, seq_idx, keep=keep, chunk_size=sizes.chunk_size
    )
    y = y.flatten(2)  # (b, l, e)
    out, scale = training_norm.gated_norm(y.flatten(0, 1), z.flatten(0, 1), norm, groups, eps)
    return out.view_as(y), _tail_after(mixed, tail), last, convolved, dt, y, scale, kept


@_core.register_fake
def _(
    projected: Tensor,
    kernel: Tensor,
    bias: Tensor,
    dt_bias: Tensor,
    a: Tensor,
    d: Tensor,
    norm: Tensor,
    _tail: Tensor | None,
    _state: Tensor | None,
    _seq_idx: Tensor | None,
    groups: int,
    _eps: float,
    keep: bool,  # noqa: FBT001
) -> tuple[Tensor, ...]:
    batch, length, _ = projected.shape
    sizes = _Sizes.of(projected, Parameters(kernel, bias, dt_bias, a, d, norm), groups)
    convolved = projected.new_empty(batch, length, sizes.f)
    x, b_in, _ = sizes.convolved(convolved)
    y, last, kept = training_scan.empty_outputs(x, b_in, sizes.chunk_size, keep=keep)
    y = y.flatten(2)
    after = projected.new_empty(batch, _TAPS - 1, sizes.f)
    dt, scale = a.new_empty(batch, length, sizes.h), a.new_empty(batch * length, groups)
    return torch.empty_like(y), after, last, convolved, dt, y, scale, kept


@torch.library.custom_op(
    "mamba_search::mixer_core_backward",
    mutates_args=(),
    schema="(Tensor dout, Tensor? dafter, Tensor? dlast, Tensor projected, Tensor kernel, Tensor bias, Tensor dt_bias,"
    " Tensor a, Tensor d, Tensor norm, Tensor? tail, Tensor? seq_idx, Tensor convolved, Tensor dt, Tensor y,"
    " Tensor scale, Tensor kept, bool from_state)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _core_backward(
    dout: Tensor,
    dafter: Tensor | None,
    dlast: Tensor | None,
    projected: Tensor,
    kernel: Tensor,
    bias: Tensor,
    dt_bias: Tensor,
    a: Tensor,
    d: Tensor,
    norm: Tensor,
    tail: Tensor | None,
    seq_idx: Tensor | None,
    convolved: Tensor,
    dt: Tensor,
    y: Tensor,
    scale: Tensor,
    kept: Tensor,
    from_state: bool,  # noqa: FBT001 - operators have no keywords in their autograd formulas
) -> tuple[Tensor, ...]:
    """Return the gradients of ``projected``, the parameters, the tail (empty if there is none) and the state."""
    from encoder.kernels import training_conv, training_norm  # need Triton

    sizes = _Sizes.of(projected, Parameters(kernel, bias, dt_bias, a, d, norm), scale.shape[1])
    projected = projected.contiguous()
    z, mixed, _, _ = sizes.parts(projected)
    dprojected = torch.empty_like(projected)
    dz, dmixed, dsteps, padding = sizes.parts(dprojected)
    padding.zero_()  # it meets the padding of in_proj's weight, which is zero too, but what is not a number would stay

    dout, y, z, dz = (tensor.view(-1, sizes.e) for tensor in (dout.contiguous(), y, z, dz))
    dy, dnorm = training_norm.gated_norm_backward(dout, y, z, norm, scale, dz)
    x, b_in, c_out = sizes.convolved(convolved)
    dconvolved = torch.empty_like(convolved)
    dx, *dkeys = sizes.convolved(dconvolved)
    ddt, *dheads, da, dd, dstate = training_scan.scan_backward(
        *(dy.view_as(x), dlast, x, dt, a, b_in, c_out, d, seq_idx, kept, dx),
        from_state=from_state,
        chunk_size=sizes.chunk_size,
    )
    for gradient, of_heads in zip(dkeys, dheads, strict=True):  # B and C
        training_scan.sum_heads(of_heads, gradient)
    dkernel, dbias, dtail = training_conv.convolve_backward(dconvolved, mixed, kernel, bias, tail, seq_idx, dmixed)
    if dafter is not None:
        _add_to_tail(dafter, dmixed, dtail)
    ddt *= -torch.expm1(-dt)  # the slope of softplus, from its value
    dsteps.copy_(ddt)
    return dprojected, dkernel, dbias, ddt.sum((0, 1)), da.sum((0, 1)), dd.sum((0, 1)), dnorm, dtail, dstate


@_core_backward.register_fake
def _(
    _dout: Tensor,
    _dafter: Tensor | None,
    _dlast: Tensor | None,
    projected: Tensor,
    kernel: Tensor,
    bias: Tensor,
    dt_bias: Tensor,
    a: Tensor,
    d: Tensor,
    norm: Tensor,
    tail: Tensor | None,
    _seq_idx: Tensor | None,
    convolved: Tensor,
    _dt: Tensor,
    _y: Tensor,
    scale: Tensor,
    _kept: Tensor,
    from_state: bool,  # noqa: FBT001
) -> tuple[Tensor, ...]:
    own = Parameters(kernel, bias, dt_bias, a, d, norm)
    sizes = _Sizes.of(projected, own, scale.shape[1])
    batch, _, heads, channels = sizes.convolved(convolved)[0].shape
    dtail = projected.new_empty(0 if tail is None else tail.shape)
    dstate = a.new_empty((batch, heads, channels, sizes.n) if from_state else 0)
    return projected.new_empty(projected.shape), *(a.new_empty(tensor.shape) for tensor in own), dtail, dstate


def _keep_for_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
    *tensors, tail, state, seq_idx, _, _, _ = inputs
    ctx.save_for_backward(*tensors, tail, seq_idx, *output[3:])
    ctx.from_tail = tail is not None and tail.requires_grad
    ctx.from_state = state is not None and state.requires_grad
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any,  # noqa: ANN401
    dout: Tensor | None,
    dafter: Tensor | None,
    dlast: Tensor | None,
    *_: None,
) -> tuple[Tensor | None, ...]:
    if dout is None:
        dout = torch.zeros_like(ctx.saved_tensors[-3])  # y's
    *gradients, dtail, dstate = _core_backward(dout, dafter, dlast, *ctx.saved_tensors, ctx.from_state)
    states = dtail if ctx.from_tail else None, dstate if ctx.from_state else None
    return *gradients, *states, None, None, None, None


_core.register_autograd(_gradients, setup_context=_keep_for_gradient)


def _tail_after(mixed: Tensor, tail: Tensor | None) -> Tensor:
    """Give the last inputs of the convolution ``(b, k - 1, f)``, in memory of their own."""
    kept = _TAPS - 1
    if mixed.shape[1] >= kept:
        return mixed[:, -kept:].clone(memory_format=torch.contiguous_format)
    before = mixed.new_zeros(len(mixed), kept, mixed.shape[2]) if tail is None else tail
    return torch.cat([before, mixed], dim=1)[:, -kept:].contiguous()


def _add_to_tail(dafter: Tensor, dmixed: Tensor, dtail: Tensor) -> None:
    """Add the gradient of :func:`_tail_after`'s result to those of its inputs; ``dtail`` is empty without a tail."""
    kept, length = _TAPS - 1, dmixed.shape[1]
    own = min(kept, length)
    dmixed[:, length - own :] += dafter[:, kept - own :]
    if dtail.numel():
        dtail[:, own:] += dafter[:, : kept - own]
