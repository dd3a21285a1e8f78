"""One layer of Mamba-1 in a handful of kernels: four matrix products, and a kernel or two between them.

Letters as in ``encoder/mamba.py``, and ``r`` for the width that time steps pass through; tokens stand in one row. The
weight of the norm is part of in_proj.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn

from encoder.kernels.fused import carrying, launches, selective_scan
from encoder.kernels.fused.cuts import MULTIPROCESSORS, SEGMENT_TOKENS_MIN, FusedPacking, Scanning
from encoder.kernels.fused.memory import Shapes
from encoder.kernels.fused.products import ROW_MULTIPLE, Product
from encoder.mamba import Block
from encoder.mixers import LayerState, Mamba1Mixer

_BLOCK = 128  # channels of a program
# Two channels a thread share what is loaded for all channels. Where that leaves multiprocessors idle, one is faster.
_MANY = {"read": 2, "num_warps": 2}
_FEW = {"read": 4, "num_warps": 4}
_FEW_PROGRAMS = 2 * MULTIPROCESSORS
_AT_ONCE = 6 * MULTIPROCESSORS  # of many programs, by their registers: 168 for each of 64 threads
_STATE_COST = 0.95  # of finding the state after a token, where to scan it costs 1
_PLACES_OF_TWO_MAX = 16  # of a state, of which a thread can hold two in registers
_CARRY_READ = 16


@dataclass(frozen=True, slots=True)
class SelectiveWorkspace:
    """What lies between the kernels of a layer: made once a pass, written and read by each layer in turn."""

    normed: Tensor  # (l, d): what in_proj reads
    projected: Tensor  # (l, 2 e): its output, x and z
    convolved: Tensor  # (l, e)
    selected: Tensor  # (l, w): x_proj's output, what time steps are made of (r), B (n) and C (n), r and w filled up
    numbers: Tensor  # (l and some more, 2 n) float32: B and C
    steps: Tensor  # (l, e): dt_proj's output
    y: Tensor  # (l, e)
    out: Tensor  # (l, d): out_proj's output


class SelectiveLayer(nn.Module):
    """Computes what :class:`encoder.mamba.Block` does with a selective, one-directional Mamba-1 mixer."""

    kernel: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
    rates: Tensor
    skip: Tensor

    def __init__(self, block: Block, dtype: torch.dtype, *, eight_bits: bool) -> None:
        super().__init__()
        mixer = block.mixer
        assert isinstance(mixer, Mamba1Mixer)
        config = mixer.config
        self.config = config
        self.block = min(_BLOCK, triton.next_power_of_2(config.d_inner))
        at_once = _AT_ONCE if config.d_state <= _PLACES_OF_TWO_MAX else _FEW_PROGRAMS
        programs = -(-config.d_inner // self.block)
        self.scanning = Scanning(programs, at_once, 1, _STATE_COST, max(1, at_once // programs))
        rank = config.time_step_rank
        more = -rank % ROW_MULTIPLE
        self.rank = rank + more
        low_rank, others = mixer.x_proj.weight.float().split([rank, 2 * config.d_state])
        x_proj = torch.cat([F.pad(low_rank, (0, 0, 0, more)), others])  # (r + 2 n, e)
        dt_proj = F.pad(mixer.dt_proj.weight.float(), (0, more))  # (e, r)
        self.in_proj = Product(mixer.in_proj.weight.float() * block.norm.weight.float(), dtype, eight_bits=eight_bits)
        self.x_proj = Product(x_proj, dtype, eight_bits=False)
        self.dt_proj = Product(dt_proj, dtype, eight_bits=False)
        self.out_proj = Product(mixer.out_proj.weight.float(), dtype, eight_bits=False)
        assert mixer.conv1d.bias is not None  # nn.Conv1d made one
        weights = {
            "kernel": launches.convolution_weights(mixer.conv1d),  # (4, e)
            "conv_bias": mixer.conv1d.bias,  # (e)
            "dt_bias": mixer.dt_proj.bias,  # (e)
            "rates": -torch.exp(mixer.A_log.float()) * math.log2(math.e),  # (e, n)
            "skip": mixer.D,  # (e)
        }
        launches.keep(self, weights)

    def warm_up_rows(self) -> list[list[int]]:
        """Give rows of sequences that have all kernels compiled: few and many programs, packed, cut, and neither."""
        many = SEGMENT_TOKENS_MIN * (_FEW_PROGRAMS // self.scanning.programs + 1)
        some = [SEGMENT_TOKENS_MIN] * (many // SEGMENT_TOKENS_MIN)
        return [[16], [15, 1], [4 * SEGMENT_TOKENS_MIN], [4 * SEGMENT_TOKENS_MIN, 1], [many], [many, 1], some]

    def shapes(self, length: int) -> Shapes:
        """Say what memory a pass over ``length`` tokens works in, for all layers."""
        config, dtype = self.config, self.in_proj.dtype
        e = config.d_inner
        return {
            "normed": ((length, config.d_model), self.in_proj.input_dtype),
            "projected": ((length, 2 * e), dtype),
            "convolved": ((length, e), dtype),
            "selected": ((length, len(self.x_proj.weight)), dtype),
            "numbers": ((length + selective_scan.ROWS_MORE, 2 * config.d_state), torch.float32),
            "steps": ((length, e), dtype),
            "y": ((length, e), dtype),
            "out": ((length, config.d_model), dtype),
        }

    def workspace(self, tensors: Mapping[str, Tensor]) -> SelectiveWorkspace:
        """Make what a pass works in of tensors in these :meth:`shapes`."""
        space = SelectiveWorkspace(**tensors)
        space.numbers[len(space.normed) :] = 0.0
        return space

    def forward(
        self, stream: Tensor, space: SelectiveWorkspace, packing: FusedPacking, state: LayerState | None
    ) -> LayerState:
        """Add the layer to the residual ``(l, d)``, reading on from ``state``; give that after the row.

        ``space.normed`` has the residual as it was, normed, and then as it is.
        """
        self.in_proj(space.normed, out=space.projected)
        after = self._mix(space, space.projected, packing, state, gates=space.projected[:, self.config.d_inner :])
        self.out_proj(space.y, out=space.out)
        launches.add_to_residual(stream, space.out, space.normed, eps=self.config.norm_eps, spread=self.in_proj.spread)
        return after

    def fit(self, space: SelectiveWorkspace) -> None:
        """Choose nothing: what has 8 bits here is normed."""

    def read_places(
        self,
        stream: Tensor,
        space: SelectiveWorkspace,
        packing: FusedPacking,
        state: LayerState | None,
        places: Tensor,
    ) -> tuple[Tensor, LayerState]:
        """Give the residual after the layer at ``places (n)`` only, ``(n, d)`` float32, and the state after the row.

        Gates, out_proj and residual of all other tokens are spared.
        """
        e = self.config.d_inner
        x = space.projected.view(-1)[: len(stream) * e].view(-1, e)
        self.in_proj(space.normed, slice(0, e), out=x)
        after = self._mix(space, x, packing, state, gates=None)
        gates = self.in_proj(launches.pick(space.normed, places), slice(e, None)).float()  # (n, e)
        y = (space.y[places].float() * F.silu(gates)).to(space.y.dtype)
        return stream[places].float() + self.out_proj(y).float(), after

    def _mix(
        self,
        space: SelectiveWorkspace,
        projected: Tensor,
        packing: FusedPacking,
        state: LayerState | None,
        *,
        gates: Tensor | None,
    ) -> LayerState:
        """From x, the first columns of ``projected``, and z if given, fill ``space.y``."""
        rank, size = self.rank, 2 * self.config.d_state
        after = launches.convolve(
            *(projected, 0, self.kernel, self.conv_bias, packing.marks),
            *(None if state is None else state.conv, space.convolved),
            taps=self.config.d_conv,
            limit=packing.limit,
        )
        self.x_proj(space.convolved, out=space.selected)
        self.dt_proj(space.selected[:, :rank], out=space.steps)
        space.numbers[: packing.length].copy_(space.selected[:, rank : rank + size])
        sizes = {"e": self.config.d_inner, "n": self.config.d_state, "block": self.block}
        few = packing.segments * self.scanning.programs <= _FEW_PROGRAMS or self.config.d_state > _PLACES_OF_TWO_MAX
        sizes |= _FEW if few else _MANY
        before = None if state is None else state.ssm[0].contiguous()
        if packing.carried is not None:
            before = self._states_before(space, packing, packing.carried, before, sizes)
        last = torch.empty_like(self.rates)
        selective_scan.selective_scan[(packing.segments * self.scanning.programs,)](
            *(space.convolved, space.steps, space.numbers.view(torch.int64), gates),
            *(self.rates, self.dt_bias, self.skip, packing.marks, packing.bounds, packing.order, packing.limit),
            *(before, space.y, last, packing.segments),
            gates_token=projected.stride(0),
            **sizes,
        )
        return LayerState(after[None], last[None])

    def _states_before(
        self,
        space: SelectiveWorkspace,
        packing: FusedPacking,
        carried: Tensor,
        first: Tensor | None,
        sizes: dict[str, int],
    ) -> Tensor:
        """Give the states before all segments ``(s, e, n)``."""
        e, n = self.rates.shape
        added = self.rates.new_empty(packing.segments, e, n)
        times, before = self.rates.new_empty(packing.segments, e), torch.empty_like(added)
        selective_scan.segment_states[(packing.segments * self.scanning.programs,)](
            *(space.convolved, space.steps, space.numbers.view(torch.int64), self.rates, self.dt_bias),
            *(packing.marks, packing.bounds, carried, packing.order, packing.limit, added, times),
            **sizes,
        )
        carrying.carry_states[e, 1](
            *(added, times, self.rates, carried, first, before, packing.segments),
            heads=e,
            size=n,
            read=_CARRY_READ,
            block=n,
            num_warps=1,
        )
        return before
