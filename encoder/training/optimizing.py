"""How weights change: AdamW or Muon, one learning-rate schedule, all gradients in one stretch of memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from encoder.model import EncoderModel
from encoder.training.config import OptimizerTable
from encoder.training.ranks import Ranks

_ALIGNMENT = 64  # numbers; fused kernels read whole lines of memory
_SHAPES_MAX = 64


class FlatGradients:
    """Gradients of many parameters end to end: cleared, summed over processes, and clipped in one operation each."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        owners = list(parameters)
        sizes = [owner.numel() + -owner.numel() % _ALIGNMENT for owner in owners]
        self._flat = torch.zeros(sum(sizes), device=owners[0].device)
        for owner, part in zip(owners, self._flat.split(sizes), strict=True):
            # Autograd adds into what it finds here, as long as nobody takes it away (zero_grad would).
            owner.grad = part[: owner.numel()].view_as(owner)

    def clear(self) -> None:
        """Set all gradients to zero."""
        self._flat.zero_()

    def finish(self, ranks: Ranks, norm_max: float) -> Tensor:
        """Sum over processes, and shorten to ``norm_max`` where longer; returns the length before, ``()``."""
        ranks.sum(self._flat)
        norm: Tensor = torch.linalg.vector_norm(self._flat)
        self._flat.mul_((norm_max / (norm + 1e-6)).clamp(max=1.0))
        return norm


class Optimizer:
    """What changes the weights of a run: one of torch's, or one for layers' matrices and one for the rest."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = parts

    def step(self, learning_rate: float) -> None:
        """Change the weights by their gradients."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate * group["share"]
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Give what a run needs to go on."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from there."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def make_optimizer(models: Iterable[EncoderModel], table: OptimizerTable) -> Optimizer:
    """AdamW; decay on matrices only, never on decays, biases, norms and embeddings (mamba_ssm marks them so, too).

    As ``muon`` the matrices of the layers change by Muon (Jordan et al. 2024), in steps as large as AdamW's (Liu et al.
    2025, arXiv 2502.16982, section 2.2), so that one learning rate serves both.
    """
    layers: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    embeddings: list[nn.Parameter] = []
    for model in models:
        for name, parameter in model.named_parameters():
            if name == "backbone.embedding.weight":
                embeddings.append(parameter)
            elif parameter.dim() != 2 or "A_log" in name:
                others.append(parameter)
            elif table.kind == "muon" and name.startswith("backbone.layers"):
                layers.append(parameter)
            else:
                matrices.append(parameter)
    groups = [
        {"params": matrices, "weight_decay": table.weight_decay, "share": 1.0},
        {"params": others, "weight_decay": 0.0, "share": 1.0},
        {"params": embeddings, "weight_decay": 0.0, "share": table.embedding_share},
    ]
    betas, fused = (0.9, table.beta2), others[0].is_cuda
    parts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=table.learning_rate, betas=betas, eps=1e-8, fused=fused)
    ]
    if layers:
        groups = [{"params": layers, "weight_decay": table.weight_decay, "share": 1.0}]
        parts.append(torch.optim.Muon(groups, lr=table.learning_rate, adjust_lr_fn="match_rms_adamw"))
    return Optimizer(parts)


def learning_rate_factor(step: int, progress: float, warmup_steps: int) -> float:
    """Linear warm-up, then half a cosine from 1 to 0 over ``progress`` 0 to 1."""
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def compile_blocks(models: Iterable[EncoderModel], *, packed: bool) -> None:
    """Compile one block, once per batch shape; the others, of the same class, reuse its code.

    Packed rows have one width and differ in number: that is left open from the second number on.
    """
    torch._dynamo.config.recompile_limit = _SHAPES_MAX
    for model in models:
        for block in model.backbone.layers:
            block.compile(dynamic=None if packed else False)
