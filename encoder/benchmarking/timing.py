"""Seconds and bytes of work on a device, and what random texts it is given. Knows no model."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OUT_OF_MEMORY = "out of memory"
_RARE_IDS = 1000  # special tokens stand among the first ids of many vocabularies


class Batch(NamedTuple):
    """Texts of one length, as ids: where documents are read from, and on the device."""

    ids: NDArray[np.int64]  # (n, l)
    tokens: Tensor  # (n, l) int64

    @property
    def size(self) -> int:
        """Tokens of all texts."""
        return self.ids.size


Reading = Callable[[Batch], Tensor]  # texts to what stands for each, (n, d)


def random_batch(rows: int, length: int, vocabulary_size: int, device: torch.device) -> Batch:
    """Draw ids; equal arguments give equal ids."""
    low = min(_RARE_IDS, vocabulary_size // 2)
    ids = np.random.default_rng([rows, length]).integers(low, vocabulary_size, (rows, length), dtype=np.int64)
    return Batch(ids, torch.from_numpy(ids).to(device))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Time one call from an idle device to an idle device."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def least_seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Time a call several times, after one that does not count; give the least."""
    work()
    return min(seconds_of(work, device) for _ in range(rounds))


def times_until(work: Callable[[], object], device: torch.device, *, rounds: int, seconds: float) -> Sequence[float]:
    """Time calls, after one that does not count, until there are so many or they have taken so long; at least one."""
    work()
    times = [seconds_of(work, device)]
    while len(times) < rounds and sum(times) < seconds:
        times.append(seconds_of(work, device))
    return times


def allocated_bytes(device: torch.device) -> int:
    """Count the bytes of all tensors on a GPU; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    gc.collect()
    return torch.cuda.memory_allocated(device)


def held_bytes(device: torch.device) -> int:
    """Count the bytes of a GPU that this process keeps, those of CUDA graphs between their passes too; 0 on a CPU."""
    release(device)
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def release(device: torch.device) -> None:
    """Give memory that no tensor holds back to a GPU."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def failure(error: Exception) -> str:
    """Say what became of work that raised an error, in a few words."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return OUT_OF_MEMORY
    return f"failed: {type(error).__name__}: {text[:160]}"
