"""The training loop that distillation and fine-tuning share: optimizer, schedule, compilation, checkpoints, log."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor

from encoder.checkpoint import save_model
from encoder.errors import MambaSearchError
from encoder.model import EncoderModel

Losses = dict[str, Tensor]
_LOG_EVERY = 50
_LOG_FIRST = 3
_SHAPES_MAX = 32


class LoopConfig(pydantic.BaseModel):
    """How long and how fast to learn."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    steps: int = pydantic.Field(ge=1)
    minutes_max: float | None = pydantic.Field(default=None, gt=0)  # the schedule then ends at whichever comes first
    learning_rate: float = pydantic.Field(gt=0)
    warmup_steps: int = pydantic.Field(default=200, ge=0)
    weight_decay: float = pydantic.Field(default=0.01, ge=0)
    gradient_norm_max: float = pydantic.Field(default=1.0, gt=0)
    checkpoint_every_s: float = pydantic.Field(default=120, gt=0)
    compile: bool = True
    seed: int = 0


class InterruptRequest:
    """While active, SIGINT and SIGTERM only raise a flag, so that a run can save its state before it ends."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, _number: int, _frame: object) -> None:
        self.received = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class DivergedError(MambaSearchError):
    """The loss is no longer finite; the last checkpoint is kept."""


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def compile_blocks(model: EncoderModel) -> None:
    """Compile one block, once per batch shape; the others, of the same class, reuse its code."""
    torch._dynamo.config.recompile_limit = _SHAPES_MAX
    for block in model.backbone.layers:
        block.compile(dynamic=False)


def make_optimizer(model: EncoderModel, config: LoopConfig) -> torch.optim.AdamW:
    """AdamW; decay on matrices only, never on decays, biases, norms and embeddings (mamba_ssm marks them so too)."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), eps=1e-8, fused=fused)


def learning_rate_factor(step: int, progress: float, warmup_steps: int) -> float:
    """Linear warm-up, then half a cosine from 1 to 0 over ``progress`` 0 to 1."""
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(
    model: EncoderModel,
    config: LoopConfig,
    out: Path,
    step_losses: Callable[[int, torch.Generator], tuple[Losses, int]],
) -> bool:
    """Take ``config.steps`` steps (fewer when ``minutes_max`` runs out), from ``out/state.pt`` on where it exists.

    ``step_losses(step, generator)`` returns named losses, summed here, and the number of tokens read. Writes
    ``out/log.jsonl``, ``out/state.pt`` (weights, optimizer, step, time) and at the end the model folder ``out``. SIGINT
    and SIGTERM end the run early with everything saved; the same command goes on. Returns whether the run is complete.
    :class:`DivergedError` where the loss is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    optimizer = make_optimizer(model, config)
    state_file = out / "state.pt"
    step, spent_s = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent_s = state["step"], state["spent_s"]
    if config.compile:
        compile_blocks(model)
    started = last_saved = time.monotonic()

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "spent_s": spent_s + time.monotonic() - started,
        }
        torch.save(state, state_file.with_suffix(".partial"))
        state_file.with_suffix(".partial").replace(state_file)

    tokens_since, logged = 0, time.monotonic()
    with (out / "log.jsonl").open("a", encoding="utf-8") as log, InterruptRequest() as interrupt:
        while step < config.steps and not interrupt.received:
            progress = step / config.steps
            if config.minutes_max is not None:
                progress = max(progress, (spent_s + time.monotonic() - started) / (config.minutes_max * 60))
            if progress >= 1:
                break
            factor = learning_rate_factor(step, progress, config.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            generator = torch.Generator(device=device).manual_seed(config.seed * 1_000_003 + step)
            losses, tokens = step_losses(step, generator)
            total = torch.stack(list(losses.values())).sum()
            total.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_norm_max)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            tokens_since += tokens
            if step % _LOG_EVERY == 0 or step <= _LOG_FIRST:
                if not math.isfinite(total.item()):
                    raise DivergedError(
                        f"The loss is {total.item()} at step {step}; {state_file} holds the last good one."
                    )
                now = time.monotonic()
                row = {
                    "step": step,
                    "progress": round(progress, 4),
                    "tokens_per_s": round(tokens_since / (now - logged)),
                    "learning_rate": config.learning_rate * factor,
                    "gradient_norm": round(norm.item(), 4),
                    **{name: round(value.item(), 5) for name, value in losses.items()},
                }
                log.write(json.dumps(row) + "\n")
                log.flush()
                print(json.dumps(row), flush=True)  # noqa: T201 - a command's output
                tokens_since, logged = 0, now
                if now - last_saved > config.checkpoint_every_s:
                    save()
                    last_saved = now
    save()
    save_model(out, model)
    return not interrupt.received
