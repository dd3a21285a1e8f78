"""Pieces of documents, and long texts, as CUDA graphs: one launch for what are hundreds of kernels.

A graph is captured for some numbers of tokens. A piece that has fewer is followed by what no state knows: time steps
behind it are zero. Where the layers stand is read from memory that all graphs share, and written there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from encoder.kernels.fused.backbone import FusedMamba
from encoder.kernels.fused.budgets import sizes
from encoder.kernels.fused.capturing import Capture
from encoder.kernels.fused.cuts import pack
from encoder.mixers import LayerState, state_shapes
from encoder.model_config import ModelConfig

_DOUBLING_UNTIL = 1024  # tokens; of what is read from there on, a fifth at most fills up
_TOKENS_PER_PLACE, _PLACES_MIN = 16, 4
# What a device reads longer than a host takes to launch its kernels, is launched one by one if much had to fill it up.
_LAUNCHED_MEANWHILE, _TIMES_TOKENS_MAX = 32_768, 1.06


class PieceGraphs:
    """Reads pieces of documents; not safe for calls from several threads at once."""

    def __init__(self, backbone: FusedMamba, tokens_max: int, capture: Capture) -> None:
        """Capture graphs of ``backbone``, for pieces of up to ``tokens_max``."""
        self._states = states = _States(backbone.config, backbone.embedding.weight.device)
        largest_first = list(sizes(tokens_max, doubling_until=_DOUBLING_UNTIL))[::-1]
        self._graphs = [_PieceGraph(backbone, tokens, capture, states) for tokens in largest_first][::-1]

    def takes(self, tokens: int, places: int) -> bool:
        """Say whether there is a graph for a piece of ``tokens`` whose hidden states are wanted at ``places``."""
        return self._graph_for(tokens, places) is not None

    def read(self, tokens: Tensor, states: list[LayerState | None], places: Tensor) -> Tensor:
        """Read on from ``states`` what is taken: hidden states of ``tokens (l)`` at ``places (n)``, ``(n, d)``.

        New states are put in ``states``.
        """
        graph = self._graph_for(len(tokens), len(places))
        if graph is None:
            raise ValueError(f"there is no graph for {len(tokens)} tokens and {len(places)} places")
        self._states.begin_from(states)
        found = graph.run(tokens, places)
        states[:] = self._states.copies()
        return found

    def _graph_for(self, tokens: int, places: int) -> _PieceGraph | None:
        graph = next((graph for graph in self._graphs if tokens <= graph.tokens), None)
        if graph is None or places > graph.places:
            return None
        return graph if graph.tokens <= max(_LAUNCHED_MEANWHILE, _TIMES_TOKENS_MAX * tokens) else None


class _States:
    """Where all layers stand, in one block of memory, so that it is copied at once."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._shapes = [torch.Size(shape) for shape in state_shapes(config)] * config.n_layers
        self._block = torch.zeros(sum(shape.numel() for shape in self._shapes), dtype=torch.float32, device=device)
        self.layers = self._cut(self._block)  # every layer's state as it stands there

    def begin_from(self, states: Sequence[LayerState | None]) -> None:
        """Put states there that a document has, all zeros where none of it was read."""
        if states[0] is None:
            self._block.zero_()
        else:
            self.put(states)

    def put(self, states: Sequence[LayerState | None]) -> None:
        """Put states there that a pass gave."""
        torch._foreach_copy_(_parts(self.layers), _parts(states))

    def copies(self) -> list[LayerState]:
        """Give every layer's state, in memory of its own."""
        return self._cut(self._block.clone())

    def _cut(self, block: Tensor) -> list[LayerState]:
        parts = block.split([shape.numel() for shape in self._shapes])
        shaped = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return [LayerState(conv, ssm) for conv, ssm in zip(shaped[::2], shaped[1::2], strict=True)]


def _parts(states: Sequence[LayerState | None]) -> list[Tensor]:
    return [part for state in states if state is not None for part in state]


class _PieceGraph:
    """Pieces of up to some number of tokens."""

    def __init__(self, backbone: FusedMamba, tokens: int, capture: Capture, states: _States) -> None:
        self.tokens, self.places = tokens, max(_PLACES_MIN, tokens // _TOKENS_PER_PLACE)
        device = backbone.embedding.weight.device
        self._ids = torch.zeros(tokens, dtype=torch.int64, device=device)
        self._places = torch.zeros(self.places, dtype=torch.int64, device=device)
        self._limit = torch.full((1,), tokens, dtype=torch.int32, device=device)
        self._packing = replace(pack([tokens], backbone.scanning, device), limit=self._limit)
        self._graph, self._found = capture(lambda: self._pass(backbone, states))

    def run(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Read a piece: hidden states ``(n, d)``, in memory of their own."""
        self._ids[: len(tokens)].copy_(tokens)
        self._ids[len(tokens) :].zero_()  # not what a piece before has left, of which not all might be finite
        self._places[: len(places)].copy_(places)
        self._limit.fill_(len(tokens))
        self._graph.replay()
        return self._found[: len(places)].clone()

    def _pass(self, backbone: FusedMamba, states: _States) -> Tensor:
        layers: list[LayerState | None] = [*states.layers]
        hidden = backbone.read(self._ids, self._packing, layers, self._places)
        states.put(layers)
        return hidden
