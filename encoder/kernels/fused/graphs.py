"""Packs of texts as CUDA graphs: one launch for a forward pass of hundreds of kernels.

A query's kernels are each shorter than their own launch. A large pack's are not, but launching them one by one keeps
the interpreter busy, which has other things to do. A graph is captured for each of some budgets of tokens, once, when a
model is prepared; what differs from call to call is read from memory that stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.kernels.fused.backbone import FusedMamba
from encoder.kernels.fused.budgets import ONE_SEGMENT_TOKENS, Budget, budgets
from encoder.kernels.fused.capturing import Capture
from encoder.kernels.fused.cuts import FusedPacking
from encoder.model import EncoderModel

_STAGED = 2  # calls: what the first was given is on the device once it is read, while the second waits behind it


class PackGraphs:
    """Embeds packs of texts; not safe for calls from several threads at once."""

    def __init__(self, model: EncoderModel, tokens_max: int, capture: Capture) -> None:
        """Capture graphs of ``model``, whose backbone must be a :class:`FusedMamba`, for up to ``tokens_max``."""
        backbone = model.backbone
        assert isinstance(backbone, FusedMamba)
        largest_first = list(budgets(backbone.scanning, tokens_max))[::-1]
        staging = _Staging(max(budget.size for budget in largest_first))
        self._graphs = [_Graph(model, backbone, budget, capture, staging) for budget in largest_first][::-1]

    def takes(self, lengths: Sequence[int]) -> bool:
        """Say whether there is a graph for texts of these lengths; a long one alone is read as a document's piece."""
        return self._graph_for(lengths) is not None

    def embed(self, rows: Sequence[Tensor]) -> Tensor:
        """Embed texts that :meth:`takes`: ``(n, d)`` float32 on the device, not computed yet."""
        graph = self._graph_for([len(row) for row in rows])
        if graph is None:
            raise ValueError("there is no graph for texts of these lengths")
        return graph.run(rows)

    def _graph_for(self, lengths: Sequence[int]) -> _Graph | None:
        if len(lengths) == 1 and lengths[0] > ONE_SEGMENT_TOKENS:
            return None
        sizes = sum(lengths), len(lengths), max(lengths)
        return next((graph for graph in self._graphs if graph.budget.takes(*sizes)), None)


class _Staging:
    """Memory of the host that a GPU copies from, for several calls in turn: a copy may still be under way."""

    def __init__(self, size: int) -> None:
        self._buffers = [torch.empty(size, dtype=torch.int32, pin_memory=True) for _ in range(_STAGED)]
        self._copied = [torch.cuda.Event() for _ in self._buffers]
        self._calls = 0

    def copy(self, fill: Callable[[NDArray[np.int32]], None], to: Tensor) -> None:
        """Have the numbers that ``fill`` writes copied to a GPU, without waiting for it."""
        place = self._calls % len(self._buffers)
        self._calls += 1
        buffer, copied = self._buffers[place][: len(to)], self._copied[place]
        copied.synchronize()
        fill(buffer.numpy())
        to.copy_(buffer, non_blocking=True)
        copied.record(torch.cuda.current_stream(to.device))


class _Graph:
    """One budget of tokens."""

    def __init__(
        self, model: EncoderModel, backbone: FusedMamba, budget: Budget, capture: Capture, staging: _Staging
    ) -> None:
        self.budget = budget
        self._staging = staging
        self._given = torch.empty(budget.size, dtype=torch.int32, device=backbone.embedding.weight.device)
        self._give(np.zeros(0, np.int32), np.zeros(0, np.int64))
        self._graph, self._found = capture(lambda: self._pass(model, backbone))

    def run(self, rows: Sequence[Tensor]) -> Tensor:
        """Embed texts: ``(n, d)``, in memory of their own."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        self._give(torch.cat(list(rows)).numpy(), lengths)
        self._graph.replay()
        return self._found[: len(rows)].clone()

    def _give(self, tokens: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        self._staging.copy(lambda given: self.budget.lay_out(given, tokens, lengths), self._given)

    def _pass(self, model: EncoderModel, backbone: FusedMamba) -> Tensor:
        tokens, marks, places, bounds, order = self.budget.parts(self._given)
        packing = FusedPacking(
            length=self.budget.tokens,
            marks=marks,
            ends=places,
            bounds=bounds,
            carried=None,
            order=order,
            segments=self.budget.segments,
            segment_tokens_max=self.budget.segment_tokens_max,
        )
        return model.finish(backbone.read(tokens, packing, [None] * len(backbone.layers), places))
