"""One layer of Mamba-2 in a handful of kernels: two matrix products, and a kernel or two before, between and after.

Letters as in ``encoder/mamba.py``; tokens stand in one row. The weights of both norms are part of the products that
follow them, and the gated norm's scale, one number a token, is applied after out_proj. Between kernels lie in_proj's
output, what was convolved, the scan's gated output and out_proj's output, each written and read once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn

from encoder.kernels.fused import carrying, hopper_scan, hopper_states, launches, residual, scan
from encoder.kernels.fused.cuts import MULTIPROCESSORS, FusedPacking, Scanning
from encoder.kernels.fused.memory import Shapes
from encoder.kernels.fused.products import Product
from encoder.kernels.fused.workspace import CHUNK_SIZE, Workspace
from encoder.mamba import Block
from encoder.mixers import LayerState, Mamba2Mixer
from encoder.model_config import ModelConfig

SCAN_LAUNCH = {"num_warps": 4, "num_stages": 2}
STATES_LAUNCH = {"num_warps": 4, "num_stages": 3}
# A state of so many numbers leaves registers enough for three programs on a multiprocessor; a larger one for two; and
# one larger still needs those of twice as many threads.
_SMALL_STATE, _USUAL_STATE = 64 * 64, 128 * 64
_SMALL_STATE_REGISTERS = 168
_WARM_UP_LENGTHS = (12, 28, 60, 8192)
_CARRY_READ, _CARRY_BLOCK = 16, 128
_EIGHT_BITS_TYPICAL = 2.0  # of a float of 8 bits that reaches from 2 ** -9 to 448
_STATE_COST = 0.2  # of finding the state after a token, where to scan it costs 1


class FusedLayer(nn.Module):
    """Computes what :class:`encoder.mamba.Block` does with a selective, one-directional Mamba-2 mixer."""

    kernel: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
    rates: Tensor
    skip: Tensor

    def __init__(self, block: Block, dtype: torch.dtype, *, eight_bits: bool) -> None:
        super().__init__()
        mixer = block.mixer
        assert isinstance(mixer, Mamba2Mixer)
        config = mixer.config
        self.config = config
        self.scanning = _scanning(config, block.norm.weight.device)
        self.eps = config.norm_eps
        in_proj = mixer.in_proj.weight.float() * block.norm.weight.float()  # (e + f + h, d)
        out_proj = mixer.out_proj.weight.float() * mixer.norm.weight.float()  # (d, e)
        self.in_proj = Product(in_proj, dtype, eight_bits=eight_bits)
        # Where a token has one scale, that undoes the power of two which brings y into the reach of 8 bits.
        self.out_proj = Product(out_proj, dtype, eight_bits=eight_bits and config.n_groups == 1, normed=False)
        self.power = 0.0
        assert mixer.conv1d.bias is not None  # nn.Conv1d made one
        weights = {
            "kernel": launches.convolution_weights(mixer.conv1d),  # (4, f)
            "conv_bias": mixer.conv1d.bias,  # (f)
            "dt_bias": mixer.dt_bias,  # (h)
            "rates": -torch.exp(mixer.A_log.float()) * math.log2(math.e),  # (h)
            "skip": mixer.D,  # (h)
        }
        launches.keep(self, weights)

    def warm_up_rows(self) -> list[list[int]]:
        """Give rows of sequences that have all kernels compiled: of one chunk of each size, and of several segments."""
        return [row for length in _WARM_UP_LENGTHS for row in ([length], [length - 1, 1])]

    def shapes(self, length: int) -> Shapes:
        """Say what memory a pass over ``length`` tokens works in, for all layers."""
        dtypes = self.in_proj.dtype, self.in_proj.input_dtype, self.out_proj.input_dtype
        return Workspace.shapes(self.config, length, len(self.in_proj.weight), dtypes)

    def workspace(self, tensors: Mapping[str, Tensor]) -> Workspace:
        """Make what a pass works in of tensors in these :meth:`shapes`."""
        return Workspace.of(self.config, tensors)

    def forward(self, stream: Tensor, space: Workspace, packing: FusedPacking, state: LayerState | None) -> LayerState:
        """Add the layer to the residual ``(l, d)``, reading on from ``state``; give that after the row.

        ``space.normed`` has the residual as it was, normed, and then as it is.
        """
        self.in_proj(space.normed, out=space.projected)
        after = self._mix(space, space.projected, packing, state, space.y, gated=True)
        one_scale = self.config.n_groups == 1
        if not one_scale:
            self._scale_groups(space)
        self.out_proj(space.y, out=space.out)
        launches.add_to_residual(
            *(stream, space.out, space.normed),
            eps=self.eps,
            spread=self.in_proj.spread,
            squares=space.squares if one_scale else None,
            inner=self.config.d_inner,
            inner_eps=self.eps * 4.0**self.power,
        )
        return after

    def fit(self, space: Workspace) -> None:
        """Choose the power of two for what 8 bits are to hold of y, by what the layer has just read."""
        if self.out_proj.eight_bits:
            mean = float(space.squares.sum(0).mean()) / self.config.d_inner * 4.0**-self.power
            self.power = float(round(math.log2(_EIGHT_BITS_TYPICAL / mean**0.5))) if mean > 0 else 0.0

    def read_places(
        self,
        stream: Tensor,
        space: Workspace,
        packing: FusedPacking,
        state: LayerState | None,
        places: Tensor,
    ) -> tuple[Tensor, LayerState]:
        """Give the residual after the layer at ``places (n)`` only, ``(n, d)`` float32, and the state after the row.

        Gates, out_proj and residual of all other tokens are spared.
        """
        e, groups = self.config.d_inner, self.config.n_groups
        length, width = space.projected.shape
        others, y = space.projected.view(-1).split([length * (width - e), length * e])
        others, y = others.view(length, width - e), y.view(length, e)
        self.in_proj(space.normed, slice(e, None), out=others)  # (l, f + h, and padding)
        after = self._mix(space, others, packing, state, y, gated=False)
        gates = self.in_proj(launches.pick(space.normed, places), slice(0, e)).float()  # (n, e)
        gated = (y[places].float() * F.silu(gates)).unflatten(1, (groups, -1))
        normed = F.rms_norm(gated, gated.shape[2:], eps=self.eps).flatten(1).to(self.out_proj.input_dtype)
        return stream[places].float() + self.out_proj(normed)[:, : self.config.d_model].float(), after

    def _mix(
        self,
        space: Workspace,
        projected: Tensor,
        packing: FusedPacking,
        state: LayerState | None,
        y: Tensor,
        *,
        gated: bool,
    ) -> LayerState:
        """From in_proj's output, with z or without, fill ``y (l, e)``, and ``space.squares`` if gated."""
        config = self.config
        heads, channels, size = config.n_heads, config.d_inner // config.n_heads, config.d_state
        after = self._convolve(space, projected, packing, state)
        sizes = {"heads": heads, "per_group": heads // config.n_groups, "q": space.chunk_size, "p": channels, "n": size}
        scan.chunk_terms[packing.segments, -(-packing.segment_tokens_max // space.chunk_size), config.n_groups](
            *(space.keys_of, space.steps, self.rates, packing.marks, packing.bounds),
            *(space.scores, space.terms, packing.length),
            **sizes,
            block_h=triton.next_power_of_2(sizes["per_group"]),
            num_warps=4,
        )
        before = None if state is None else state.ssm[0].contiguous()
        if packing.carried is not None:
            before = self._states_before(space, packing, packing.carried, before, sizes)
        last = space.steps.new_empty(heads, channels, size)
        kernel, read, launch = scan.scan, 1, _scan_launch(channels * size)
        if space.on_hopper:
            kernel, read, launch = hopper_scan.scan, hopper_scan.HEADS, hopper_scan.LAUNCH
        kernel[(packing.segments * heads // read,)](
            *(space.tiles.values, space.tiles.keys, space.tiles.gates if gated else None, space.tiles.scores),
            *(space.terms, self.skip, packing.bounds, packing.order, before),
            *(y, space.squares if gated else None, last, packing.length, packing.segments),
            self.power if gated else 0.0,
            **sizes,
            **launch,
        )
        return LayerState(after[None], last[None])

    def _convolve(self, space: Workspace, projected: Tensor, packing: FusedPacking, state: LayerState | None) -> Tensor:
        """Fill ``space.convolved`` and ``space.steps``; give the last inputs ``(k - 1, f)``."""
        offset = self.config.d_inner - (len(self.in_proj.weight) - projected.shape[1])
        return launches.convolve(
            *(projected, offset, self.kernel, self.conv_bias, packing.marks),
            None if state is None else state.conv,
            *(space.convolved, space.steps, self.dt_bias),
            taps=self.config.d_conv,
            limit=packing.limit,
        )

    def _states_before(
        self, space: Workspace, packing: FusedPacking, carried: Tensor, first: Tensor | None, sizes: dict[str, int]
    ) -> Tensor:
        """Give the states before all segments ``(s, h, p, n)``."""
        heads, size = sizes["heads"], sizes["p"] * sizes["n"]
        added = space.steps.new_empty(packing.segments, heads, sizes["p"], sizes["n"])
        decays, before = added.new_empty(packing.segments, heads), torch.empty_like(added)
        kernel, read, launch = carrying.segment_states, 1, STATES_LAUNCH
        if space.on_hopper:
            kernel, read, launch = hopper_states.segment_states, hopper_scan.HEADS, hopper_states.LAUNCH
        kernel[(packing.segments * heads // read,)](
            *(space.tiles.values_together, space.tiles.keys, space.terms, packing.bounds, carried, packing.order),
            *(added, decays, packing.length),
            **sizes,
            **launch,
        )
        carrying.carry_states[heads, size // _CARRY_BLOCK](
            *(added, decays, None, carried, first, before, packing.segments),
            heads=heads,
            size=size,
            read=_CARRY_READ,
            block=_CARRY_BLOCK,
            num_warps=4,
        )
        return before

    def _scale_groups(self, space: Workspace) -> None:
        config = self.config
        width, per_group = config.d_inner // config.n_groups, config.n_heads // config.n_groups
        block = triton.next_power_of_2(width)
        read = max(1, launches.ROW_VALUES // block)
        residual.scale_groups[-(-len(space.y) // read), config.n_groups](
            *(space.y, space.squares, len(space.y)),
            eps=self.eps,
            width=width,
            groups=config.n_groups,
            per_group=per_group,
            read=read,
            block=block,
            block_h=triton.next_power_of_2(per_group),
            num_warps=4,
        )


def _scanning(config: ModelConfig, device: torch.device) -> Scanning:
    """Say how many programs scan side by side, and find states."""
    heads, channels, size = config.n_heads, config.d_inner // config.n_heads, config.d_state
    if hopper_scan.covers(CHUNK_SIZE, channels, size, heads // config.n_groups, device):
        at_once = MULTIPROCESSORS  # with two heads each; those that find states are two on a multiprocessor
        programs = heads // hopper_scan.HEADS
        return Scanning(programs, at_once, CHUNK_SIZE, _STATE_COST, states_at_once=max(1, 2 * at_once // programs))
    at_once = MULTIPROCESSORS * (3 if channels * size <= _SMALL_STATE else 2 if channels * size <= _USUAL_STATE else 1)
    return Scanning(heads, at_once, CHUNK_SIZE, _STATE_COST, states_at_once=max(1, at_once // heads))


def _scan_launch(state_size: int) -> dict[str, int]:
    if state_size > _USUAL_STATE:
        return SCAN_LAUNCH | {"num_warps": 8}
    return SCAN_LAUNCH | ({"maxnreg": _SMALL_STATE_REGISTERS} if state_size <= _SMALL_STATE else {})
