"""Several processes that train together, launched by torchrun or Ray Train; alone, each function does nothing.

Every process reads batches of its own. Embeddings are gathered, so that each computes the same loss, of all queries
against all passages; gradients are then those of its own part, and summed over processes they are the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


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


def join_ranks(device: str) -> Ranks:
    """Join the process group where a launcher has started this process, or has made the group already.

    ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; of several processes on a machine each takes a GPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    together = dist.is_available() and (dist.is_initialized() or dist.is_torchelastic_launched())
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", dist.get_node_local_rank(0) if together else torch.cuda.current_device())
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if not together:
        return Ranks(0, 1, chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size(), chosen)
