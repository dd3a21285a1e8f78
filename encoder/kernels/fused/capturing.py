"""How CUDA graphs are captured: one after the other, in memory that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_WARM_UPS = 2  # before a capture, that nothing is compiled or set up within it


class Capture:
    """Captures graphs of which only one runs at a time; the largest should be the first, in whose memory others fit."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One for all: cuBLAS keeps a workspace for each stream that it is called on, outside of the graphs' memory.
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None  # torch has no public name for it

    def __call__(self, work: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Capture what ``work`` has the device do; what it returns is there after each replay, until the next graph's.

        It is called ``_WARM_UPS`` times before that.
        """
        here = torch.cuda.current_stream(self._device)
        # The last of them takes a capture that fails back to where it came from.
        with torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(here):
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    work()
            here.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                found = work()
        self._pool = graph.pool()
        return graph, found
