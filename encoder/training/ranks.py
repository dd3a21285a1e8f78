"""Several processes that train together, launched by torchrun or Ray Train; alone, each function does nothing.

Every process reads batches of its own. Embeddings are gathered, so that each computes the same loss, of all queries
against all passages; gradients are then those of its own part, and summed over processes they are the whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from encoder.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process among those that train together."""

    rank: int
    count: int
    device: torch.device

    def gather(self, part: Tensor, *, equal: bool = True) -> Tensor:
        """Join the rows of all processes, ``(n, ...)`` each to ``(all n, ...)``; gradients flow into one's own.

        With ``equal`` all processes bring as many rows; else their numbers are exchanged first, which waits for them.
        """
        if self.count == 1:
            return part
        counts = [len(part)] * self.count
        if not equal:
            mine = torch.tensor([len(part)], device=part.device)
            all_counts = [torch.empty_like(mine) for _ in counts]
            dist.all_gather(all_counts, mine)
            counts = torch.cat(all_counts).tolist()
        padded = F.pad(part.detach(), [0, 0] * (part.dim() - 1) + [0, max(counts) - len(part)]).contiguous()
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        parts = [each[:count] for each, count in zip(found, counts, strict=True)]
        parts[self.rank] = part
        return torch.cat(parts)

    def sum(self, tensor: Tensor) -> None:
        """Add up a tensor over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)

    def agree(self, value: float) -> float:
        """Give the first process's value to all; waits for them."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def any(self, *, flag: bool) -> bool:
        """Tell whether any process has the flag; waits for them."""
        if self.count == 1:
            return flag
        shared = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(shared)
        return bool(shared.item() > 0)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()


@contextlib.contextmanager
def joined_ranks(device: str, *, exchanges: bool = True) -> Iterator[Ranks]:
    """Join the process group where a launcher has started this process, or has made the group already.

    ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; of several processes on a machine each takes a GPU. Those
    that only share work out, and exchange nothing, need no NCCL, in which the first to leave waits for the last.
    :class:`~encoder.errors.InvalidInput` where there is none for it. A group made here is left where the block ends
    well; after an error, leaving might wait for processes that are gone.
    """
    together = dist.is_available() and (dist.is_initialized() or dist.is_torchelastic_launched())
    chosen = choose_device(device, dist.get_node_local_rank(0) if together else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if not together:
        yield Ranks(0, 1, chosen)
        return
    own = not dist.is_initialized()
    if own and exchanges and chosen.type == "cuda":
        dist.init_process_group("nccl", device_id=chosen)
    elif own:
        dist.init_process_group("gloo")
    yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    if own:
        dist.destroy_process_group()


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """Choose the device of a process; ``local_rank`` is its number on this machine where several work together.

    :class:`~encoder.errors.InvalidInput` where there is none of that name.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise InvalidInput("device", f"device is {name!r}; it must be auto, cpu, cuda or cuda:N.") from None
    if chosen.type != "cuda":
        return chosen
    if local_rank is not None:
        if chosen.index is not None:
            raise InvalidInput(
                "device", f"device is {name!r} for several processes; give cuda, and each takes its own."
            )
        chosen = torch.device("cuda", local_rank)
    elif chosen.index is None:
        chosen = torch.device("cuda", torch.cuda.current_device() if count else 0)
    if chosen.index >= count:
        raise InvalidInput("device", f"device is {name!r}, and there is no {chosen}; GPUs in sight: {count}.")
    return chosen
