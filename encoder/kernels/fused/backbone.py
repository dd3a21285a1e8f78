"""The backbone over fused layers, for inference on a GPU. Letters as in ``encoder/mamba.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder.kernels.fused import launches
from encoder.kernels.fused.cuts import FusedPacking, Scanning, pack
from encoder.kernels.fused.layer import FusedLayer
from encoder.kernels.fused.memory import Memory, Shapes
from encoder.kernels.fused.products import Product
from encoder.kernels.fused.selective_layer import SelectiveLayer
from encoder.mamba import Block, Mamba
from encoder.mixers import LayerState

Space = TypeVar("Space")
_RESIDUAL = "residual"  # (l, d)
_FIT_SEQUENCES, _FIT_LENGTH = 8, 256


class Layer(Protocol[Space]):
    """What a layer of either kind is: one that all layers' work in one space, made once a pass."""

    scanning: Scanning
    in_proj: Product

    def warm_up_rows(self) -> list[list[int]]:
        """Give the lengths of sequences, row by row, that have all kernels compiled."""

    def shapes(self, length: int) -> Shapes:
        """Say what memory a pass over ``length`` tokens works in, for all layers; ``normed`` is what in_proj reads."""

    def workspace(self, tensors: Mapping[str, Tensor]) -> Space:
        """Make what a pass works in of tensors in these :meth:`shapes`."""

    def fit(self, space: Space) -> None:
        """Choose scales by what the layer has just read."""

    def __call__(self, stream: Tensor, space: Space, packing: FusedPacking, state: LayerState | None) -> LayerState:
        """Add to the residual ``(l, d)``, which is normed in ``space``; give the state after the row."""

    def read_places(
        self, stream: Tensor, space: Space, packing: FusedPacking, state: LayerState | None, places: Tensor
    ) -> tuple[Tensor, LayerState]:
        """Give the residual after the layer at some places only, ``(n, d)``, and the state after the row."""


class Pieces(Protocol):
    """Reads pieces of documents sooner than kernel by kernel, if they are of sizes that it takes."""

    def takes(self, tokens: int, places: int) -> bool:
        """Say whether it takes a piece of ``tokens``, of which hidden states are wanted at ``places``."""

    def read(self, tokens: Tensor, states: list[LayerState | None], places: Tensor) -> Tensor:
        """Read on from states: hidden states of ``tokens (l)`` at ``places (n)``; new states are put in ``states``."""


class FusedMamba(Mamba):
    """Computes what :class:`encoder.mamba.Mamba` does with selective, one-directional layers.

    Sequences stand in one row; of the last layer only what is wanted is computed. :meth:`read_layers` is no part of it.
    """

    def __init__(self, backbone: Mamba, dtype: torch.dtype, *, eight_bits: bool = False) -> None:
        """Take over ``backbone``, block by block, so that the weights of a large model are never held twice."""
        nn.Module.__init__(self)
        self.config = backbone.config
        self.embedding = backbone.embedding
        self.embedding.weight.data = self.embedding.weight.data.contiguous()  # as it is read, row by row
        self.norm_f = backbone.norm_f
        self.dtype = dtype
        # Rounding the residual to 16 bits, layer by layer, is little beside rounding factors to 8.
        self.residual_dtype = dtype if eight_bits else torch.float32
        kind = SelectiveLayer if self.config.architecture == "mamba1" else FusedLayer
        for number, block in enumerate(backbone.layers):
            assert isinstance(block, Block)
            backbone.layers[number] = kind(block, dtype, eight_bits=eight_bits)
        self.layers = backbone.layers
        self.pieces: Pieces | None = None
        self._memory = Memory(self.embedding.weight.device)
        if eight_bits and self.config.architecture == "mamba2" and self.config.n_groups == 1:
            self._fit()

    @property
    def scanning(self) -> Scanning:
        """How layers scan a row."""
        return self._layers()[0].scanning

    def hidden_packed(self, tokens: Tensor, lengths: Sequence[int], dtype: torch.dtype, *, ends_only: bool) -> Tensor:
        """Read sequences end to end, as :meth:`encoder.mamba.Mamba.hidden_packed`."""
        assert dtype == self.dtype
        if len(lengths) == 1 and ends_only:
            end = torch.full((1,), lengths[0] - 1, device=tokens.device)
            return self.hidden_on(tokens, [None] * len(self.layers), dtype, end)
        packing = self._pack(lengths, tokens.device)
        places = packing.ends if ends_only else None
        return self.read(tokens[0], packing, [None] * len(self.layers), places)

    def hidden_on(
        self, tokens: Tensor, states: list[LayerState | None], dtype: torch.dtype, places: Tensor | None
    ) -> Tensor:
        """Read on from states, as :meth:`encoder.mamba.Mamba.hidden_on`."""
        assert dtype == self.dtype
        length = tokens.shape[1]
        if self.pieces is not None and places is not None and self.pieces.takes(length, len(places)):
            return self.pieces.read(tokens[0], states, places)
        packing = self._pack([length], tokens.device)
        return self.read(tokens[0], packing, states, places)

    @torch.inference_mode()
    def _fit(self) -> None:
        """Have layers choose the scales of 8 bits, by reading random tokens: always the same."""
        device = self.embedding.weight.device
        size, lengths = self.config.vocabulary_size, [_FIT_LENGTH] * _FIT_SEQUENCES
        tokens = torch.randint(0, size, (sum(lengths),), generator=torch.Generator().manual_seed(0)).to(device)
        packing = self._pack(lengths, device)
        for _ in range(2):  # at first with what was rounded to a scale that did not fit
            self.read(tokens, packing, [None] * len(self.layers), None, fit=True)

    def reserve(self, tokens: int) -> None:
        """Take the memory for passes over up to so many tokens, once for all; longer ones take their own.

        Then passes must not be made on several streams of a device at once.
        """
        self._memory.reserve(self._shapes(tokens))

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Read a little of everything, so that no kernel is compiled later: packed, alone, and in pieces.

        What was compiled once stays in Triton's cache on the disk.
        """
        device, ends_only = self.embedding.weight.device, self.config.pooling != "mean"
        for lengths in self._layers()[0].warm_up_rows():
            tokens = torch.zeros(1, sum(lengths), dtype=torch.int64, device=device)
            places = torch.zeros(1, dtype=torch.int64, device=device) if ends_only else None
            self.hidden_packed(tokens, lengths, self.dtype, ends_only=ends_only)
            states: list[LayerState | None] = [None] * len(self.layers)
            for _ in range(2):
                self.hidden_on(tokens, states, self.dtype, places)

    def read(
        self,
        tokens: Tensor,
        packing: FusedPacking,
        states: list[LayerState | None],
        places: Tensor | None,
        *,
        fit: bool = False,
    ) -> Tensor:
        """Give the hidden states of ``tokens (l)``: at ``places (n)``, or all; new states are put in ``states``.

        ``fit`` lets layers choose their scales.
        """
        layers = self._layers()
        # Triton starts kernels on the current device.
        with torch.cuda.device_of(tokens):
            tensors = self._memory.lend(self._shapes(len(tokens)))
            stream, space = tensors.pop(_RESIDUAL), layers[0].workspace(tensors)
            launches.begin_residual(
                *(self.embedding.weight, tokens, stream, tensors["normed"]),
                eps=self.config.norm_eps,
                spread=layers[0].in_proj.spread,
            )
            for number, layer in enumerate(layers if places is None else layers[:-1]):
                states[number] = layer(stream, space, packing, states[number])
                if fit:
                    layer.fit(space)
            if places is not None:
                stream, states[-1] = layers[-1].read_places(stream, space, packing, states[-1], places)
            return F.rms_norm(stream.float(), stream.shape[1:], self.norm_f.weight.float(), self.norm_f.eps)

    def _shapes(self, length: int) -> Shapes:
        residual = (length, self.config.d_model), self.residual_dtype
        return {_RESIDUAL: residual, **self._layers()[0].shapes(length)}

    def _layers(self) -> list[Layer[object]]:
        return cast("list[Layer[object]]", list(self.layers))

    def _pack(self, lengths: Sequence[int], device: torch.device) -> FusedPacking:
        return pack(lengths, self.scanning, device)
