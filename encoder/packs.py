"""Texts in packs, and the embeddings of packs that a GPU is still reading. Knows no tokenizer and no model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# One is read while the next is made ready and launched; more would take memory and make queries wait.
PACKS_AT_ONCE = 2


def pack(lengths: Sequence[int], pack_tokens: int) -> Iterator[list[int]]:
    """Lay texts end to end, longest first, into packs of at most ``pack_tokens``, or of one text."""
    group: list[int] = []
    room = pack_tokens
    for number in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if group and lengths[number] > room:
            yield group
            group, room = [], pack_tokens
        group.append(number)
        room -= lengths[number]
    if group:
        yield group


class PacksUnderWay:
    """Puts packs' embeddings together. One thread may add packs, and another wait for the end."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._under_way: deque[tuple[list[int], _Arriving]] = deque()
        self._arrived: list[tuple[list[int], NDArray[np.float32]]] = []

    def make_room(self) -> None:
        """Wait until one more pack may be launched: until fewer than :data:`PACKS_AT_ONCE` are under way."""
        while len(self._under_way) >= PACKS_AT_ONCE:
            self._fetch()

    def add(self, places: list[int], embeddings: Tensor) -> None:
        """Add a launched pack: its texts' places among all, and their embeddings ``(n, d)``, not computed yet."""
        self._under_way.append((places, _Arriving(embeddings)))

    def embeddings(self) -> NDArray[np.float32]:
        """Wait for all: ``(n, d)``, in the order of their places."""
        while self._under_way:
            self._fetch()
        found = np.empty((sum(len(places) for places, _ in self._arrived), self._dimension), dtype=np.float32)
        for places, part in self._arrived:
            found[places] = part
        return found

    def _fetch(self) -> None:
        places, arriving = self._under_way.popleft()
        self._arrived.append((places, arriving.wait()))


class _Arriving:
    """A tensor on its way to the CPU: asking for it at once would keep the next pack from being launched."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._host = tensor.cpu()

    def wait(self) -> NDArray[np.float32]:
        if self._event is not None:
            self._event.synchronize()
        result: NDArray[np.float32] = self._host.numpy()
        return result
