"""The training loop: steps, exact resuming, a loss that diverges, interruption, one process or several.

A step's batch follows from the seed, the step's number and the process alone, so that a run that was interrupted goes
on as if it had not been. Between two rows of the log nothing waits for the device.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from encoder.errors import MambaSearchError
from encoder.text_encoder import preferred_dtype
from encoder.training.checkpoints import (
    STATE_FILE,
    Encoders,
    Progress,
    distinct,
    load_state,
    save_encoders,
    save_state,
    start_encoders,
)
from encoder.training.config import TrainConfig
from encoder.training.documents import DocumentRows, documents_step
from encoder.training.feeding import Batch, Feed
from encoder.training.gradient_cache import learn
from encoder.training.logs import Means, RunLog, plot_losses
from encoder.training.optimizing import FlatGradients, compile_blocks, learning_rate_factor, make_optimizer
from encoder.training.ranks import Ranks, join_ranks
from encoder.training.tasks import (
    DistillRows,
    PairRows,
    Step,
    Surroundings,
    check_task,
    distill_step,
    pairs_step,
    ranking_step,
)
from encoder.training.teacher import load_teacher

_LOG_FIRST = (1, 2, 3)  # steps: so that a mistake is seen at once


class DivergedError(MambaSearchError):
    """The loss is no longer finite; the last good checkpoint is kept."""


class InterruptRequest:
    """While active, SIGINT and SIGTERM only raise a flag, so that a run can save its state before it ends."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread, as under Ray Train: its signals are the launcher's
                break
        return self

    def _note(self, _number: int, _frame: object) -> None:
        self.received = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Run:
    """What the steps of a run work with."""

    config: TrainConfig
    ranks: Ranks
    encoders: Encoders
    around: Surroundings
    dtype: torch.dtype
    optimizer: torch.optim.Optimizer
    gradients: FlatGradients
    progress: Progress
    steps: int
    started: float
    healthy: Tensor  # () whether all losses and gradients so far were finite
    means: Means = field(default_factory=Means)


def train(config: TrainConfig, *, stop_after: int | None = None) -> bool:
    """Train, from ``out/state.pt`` on where there is one; say whether the run is complete.

    Writes into ``out``: the model (``query`` and ``passage`` where they are two), ``state.pt``, ``log.jsonl``,
    ``events`` and ``loss.svg``. SIGINT and SIGTERM end the run early with everything saved, as does ``stop_after``
    steps of this call; the same configuration goes on. :class:`DivergedError` where the loss is not finite, with the
    last good checkpoint kept; :class:`~encoder.errors.InvalidInput` and :class:`~encoder.errors.CheckpointError` for
    data, a model, a teacher or a checkpoint that does not fit.
    """
    ranks = join_ranks(config.device)
    feed = Feed.open(config, ranks)
    run = _begin(config, ranks, feed)
    first = run.progress.step
    last = run.steps if stop_after is None else min(run.steps, first + stop_after)
    if first >= run.steps:
        save_encoders(config.out, config, run.encoders)
        return True
    with InterruptRequest() as interrupt, _log(run) as log:
        over = _take_steps(run, feed.batches(first, last, ranks.device), interrupt, log)
    complete = over or run.progress.step >= run.steps
    if ranks.rank == 0:
        _save(run)
        save_encoders(config.out, config, run.encoders)
        plot_losses(config.out)
    ranks.wait()
    return complete


def _begin(config: TrainConfig, ranks: Ranks, feed: Feed) -> _Run:
    config.out.mkdir(parents=True, exist_ok=True)
    teacher = None
    if config.teacher is not None and feed.maker.teacher is not None:
        teacher = load_teacher(config.teacher, feed.maker.teacher, ranks.device)
    encoders = start_encoders(config, ranks.device, teacher)
    models = list(distinct(encoders).values())
    for number, task in enumerate(config.tasks):
        check_task(task, f"tasks.{number}", teacher, models[0].config)
    gradients = FlatGradients(parameter for model in models for parameter in model.parameters())
    optimizer = make_optimizer(models, config.optimizer)
    progress = load_state(config.out, config, encoders, optimizer)
    if config.run.compile:
        compile_blocks(models)
    return _Run(
        config=config,
        ranks=ranks,
        encoders=encoders,
        around=Surroundings(teacher, ranks, config.run.slice_tokens),
        dtype=compute_dtype(config.run.dtype, ranks.device),
        optimizer=optimizer,
        gradients=gradients,
        progress=progress,
        steps=feed.steps,
        started=time.monotonic() - progress.spent_s,
        healthy=torch.ones((), dtype=torch.bool, device=ranks.device),
    )


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32; unless named."""
    if name == "auto":
        return preferred_dtype(device)
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _take_steps(run: _Run, batches: Iterator[Batch], interrupt: InterruptRequest, log: RunLog | None) -> bool:
    """Take steps until batches or time run out; say whether time did."""
    table, progress = run.config.run, run.progress
    clock = _Clock(run)
    for batch in batches:
        share = clock.share(progress.step / run.steps)
        if share >= 1:
            return True
        rate = run.config.optimizer.learning_rate * learning_rate_factor(
            progress.step, share, run.config.optimizer.warmup_steps
        )
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        norm = _step(run, batch)
        progress.step += 1
        progress.tokens += batch.tokens
        clock.count(batch)
        logs = progress.step % table.log_every == 0 or progress.step in (*_LOG_FIRST, run.steps)
        if logs:
            _check_health(run)
            row = clock.row() | {"progress": round(share, 4), "learning_rate": rate, "gradient_norm": norm.item()}
            row |= run.means.take()
            if log is not None:
                log.write({key: round(value, 6) for key, value in row.items()})
        if log is not None:
            log.advance(progress.step, run.steps)
        # Processes must stop, and save, at the same step: they ask one another where they wait anyway.
        if run.ranks.count > 1 and not logs:
            continue
        if clock.checkpoint_is_due():
            _check_health(run)
            if run.ranks.rank == 0:
                _save(run)
        if run.ranks.any(flag=interrupt.received):
            break
    _check_health(run)
    return False


def _step(run: _Run, batch: Batch) -> Tensor:
    """Take one step; returns the gradient's length, still on the device."""
    step = _ready(run, batch.to(run.ranks.device))
    losses = learn(run.encoders, step.readings, step.losses_of, run.dtype)
    norm = run.gradients.finish(run.ranks, run.config.optimizer.gradient_norm_max)
    run.healthy &= torch.isfinite(norm)
    run.optimizer.step()
    run.gradients.clear()
    task = run.config.tasks[batch.task]
    run.means.add(f"{task.kind}_{task.texts}" if task.kind == "distill" else task.kind, losses)
    return norm


def _ready(run: _Run, batch: Batch) -> Step:
    task, rows = run.config.tasks[batch.task], batch.rows
    if isinstance(rows, PairRows):
        assert task.kind == "pairs"
        return pairs_step(rows, task, run.around)
    if isinstance(rows, DistillRows):
        assert task.kind == "distill"
        return distill_step(rows, task, run.around)
    if isinstance(rows, DocumentRows):
        assert task.kind == "documents"
        return documents_step(rows, task, run.around)
    assert task.kind == "ranking"
    return ranking_step(rows, task, run.around)


class _Clock:
    """Time and speed of a run."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._saved = self._logged = time.monotonic()
        self._tokens = self._places = 0
        self._shared_s = run.progress.spent_s

    def share(self, of_steps: float) -> float:
        """Say how much of the run is over, by steps or by time, whichever is further."""
        minutes = self._run.config.run.minutes_max
        if minutes is None:
            return of_steps
        if self._run.ranks.count == 1:
            self._shared_s = time.monotonic() - self._run.started
        return max(of_steps, self._shared_s / (minutes * 60))

    def count(self, batch: Batch) -> None:
        """Add a batch."""
        self._tokens += batch.tokens
        self._places += batch.places

    def row(self) -> dict[str, float]:
        """Give what the log says of time since the last row; all processes see the first one's clock from here on."""
        ranks, now = self._run.ranks, time.monotonic()
        self._shared_s = ranks.agree(now - self._run.started)
        row = {
            "step": self._run.progress.step,
            "spent_s": round(self._shared_s, 2),
            "tokens": self._run.progress.tokens * ranks.count,
            "tokens_per_s": round(self._tokens * ranks.count / (now - self._logged)),
            "padding": round(1 - self._tokens / max(1, self._places), 4),
        }
        self._tokens, self._places, self._logged = 0, 0, now
        return row

    def checkpoint_is_due(self) -> bool:
        """Tell whether it is time for a checkpoint."""
        due = time.monotonic() - self._saved > self._run.config.run.checkpoint_every_s
        if due:
            self._saved = time.monotonic()
        return due


def _check_health(run: _Run) -> None:
    """Stop a run whose losses are no longer numbers, before a checkpoint is made of it."""
    if not run.healthy.item():
        state = run.config.out / STATE_FILE
        kept = f"{state} holds the last good state" if state.exists() else "no state had been saved yet"
        raise DivergedError(
            f"The loss or its gradient is no longer finite at step {run.progress.step}; {kept}. Lower "
            "optimizer.learning_rate, or look at the data of the last steps."
        )


def _save(run: _Run) -> None:
    run.progress.spent_s = time.monotonic() - run.started
    save_state(run.config.out, run.config, run.encoders, run.optimizer, run.progress)


def _log(run: _Run) -> RunLog | _NoLog:
    if run.ranks.rank:
        return _NoLog()
    return RunLog(run.config.out, run.progress.step, run.steps, run.config.out.name)


class _NoLog:
    """Processes other than the first say nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
