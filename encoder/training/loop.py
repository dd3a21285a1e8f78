"""The training loop: steps, exact resuming, a loss that diverges, interruption, one process or several.

A step's batch follows from the seed, the step's number and the process alone, so that a run that was interrupted goes
on as if it had not been. Between two rows of the log nothing waits for the device.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from encoder.errors import InvalidInput, MambaSearchError
from encoder.model import EncoderModel
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
from encoder.training.clock import Clock, InterruptRequest
from encoder.training.config import TrainConfig, words_weight_of
from encoder.training.documents import DocumentRows, documents_step
from encoder.training.feeding import Batch, Feed
from encoder.training.gradient_cache import learn
from encoder.training.joint_teacher import load_teacher, with_width
from encoder.training.logs import Means, RunLog, plot_losses
from encoder.training.optimizing import (
    FlatGradients,
    Optimizer,
    compile_blocks,
    learning_rate_factor,
    make_optimizer,
)
from encoder.training.ranks import Ranks, joined_ranks
from encoder.training.rows import WIDTH_MULTIPLE
from encoder.training.task_checks import check_teacher
from encoder.training.tasks import (
    DistillRows,
    PairRows,
    Step,
    StepContext,
    distill_step,
    pairs_step,
    ranking_step,
)
from encoder.training.word_overlap import WordOverlap

_LOG_FIRST = (1, 2, 3)  # steps: so that a mistake is seen at once


class DivergedError(MambaSearchError):
    """The loss is no longer finite; the last good checkpoint is kept."""


@dataclass(slots=True)
class _Run:
    """What the steps of a run work with."""

    config: TrainConfig
    ranks: Ranks
    encoders: Encoders
    context: StepContext
    dtype: torch.dtype
    optimizer: Optimizer
    gradients: FlatGradients
    progress: Progress
    steps: int
    clock: Clock
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
    with joined_ranks(config.device) as ranks:
        return _train(config, ranks, stop_after)


def _train(config: TrainConfig, ranks: Ranks, stop_after: int | None) -> bool:
    feed = Feed.open(config, ranks)
    run = _begin(config, ranks, feed)
    first = run.progress.step
    last = run.steps if stop_after is None else min(run.steps, first + stop_after)
    if first >= run.steps:
        if ranks.rank == 0:
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
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput("out", f"out {config.out} cannot be a folder ({error.strerror}); give another.") from error
    teacher = None
    if config.teacher is not None and feed.maker.teacher is not None:
        teacher = load_teacher(config.teacher, feed.maker.teacher, ranks.device)
        if config.teacher.dimension is not None:
            teacher = with_width(
                teacher,
                config.teacher,
                feed.maker.teacher,
                feed.sources,
                config.out,
                config.model.start_folder,
                ranks,
            )
    encoders = start_encoders(config, ranks.device, teacher)
    models = list(distinct(encoders).values())
    if teacher is not None:
        for number, task in enumerate(config.tasks):
            check_teacher(task, f"tasks.{number}", teacher, models[0].config)
    feed.check()
    gradients = FlatGradients(parameter for model in models for parameter in model.parameters())
    optimizer = make_optimizer(models, config.optimizer)
    progress = load_state(config.out, config, encoders, optimizer)
    if config.run.compile:
        compile_blocks(models, packed=config.run.pack_tokens is not None)
    return _Run(
        config=config,
        ranks=ranks,
        encoders=encoders,
        context=StepContext(teacher, ranks, config.run.slice_tokens, _words(config, feed, models[0], ranks)),
        dtype=compute_dtype(config.run.dtype, ranks.device),
        optimizer=optimizer,
        gradients=gradients,
        progress=progress,
        steps=feed.steps,
        clock=Clock(ranks, config.run, progress.spent_s),
        healthy=torch.ones((), dtype=torch.bool, device=ranks.device),
    )


def _words(config: TrainConfig, feed: Feed, model: EncoderModel, ranks: Ranks) -> WordOverlap | None:
    rules = feed.maker.teacher
    if rules is None or not any(words_weight_of(task) for task in config.tasks):
        return None
    return WordOverlap.of(feed.sources, model.config.vocabulary_size, rules.tokens_max + WIDTH_MULTIPLE, ranks.device)


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32; unless named."""
    if name == "auto":
        return preferred_dtype(device)
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _take_steps(run: _Run, batches: Iterator[Batch], interrupt: InterruptRequest, log: RunLog | None) -> bool:
    """Take steps until batches or time run out; say whether time did."""
    table, progress, clock = run.config.run, run.progress, run.clock
    out_of_time = False
    for batch in batches:
        share = clock.share(progress.step / run.steps)
        out_of_time = share >= 1
        if out_of_time:
            break
        rate = run.config.optimizer.learning_rate * learning_rate_factor(
            progress.step, share, run.config.optimizer.warmup_steps
        )
        norm = _step(run, batch, rate)
        progress.step += 1
        progress.tokens += batch.tokens
        clock.count(batch.tokens, batch.places)
        logs = progress.step % table.log_every == 0 or progress.step in (*_LOG_FIRST, run.steps)
        if logs:
            _check_health(run)
            row = {"step": progress.step, "tokens": progress.tokens * run.ranks.count} | clock.row()
            row |= {"progress": round(share, 4), "learning_rate": rate, "gradient_norm": norm.item()}
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
    return out_of_time


def _step(run: _Run, batch: Batch, rate: float) -> Tensor:
    """Take one step; returns the gradient's length, still on the device."""
    step = _ready(run, batch.to(run.ranks.device))
    losses = learn(run.encoders, step.readings, step.losses_of, run.dtype)
    norm = run.gradients.finish(run.ranks, run.config.optimizer.gradient_norm_max)
    run.healthy &= torch.isfinite(norm)
    run.optimizer.step(rate)
    run.gradients.clear()
    task = run.config.tasks[batch.task]
    run.means.add(f"{task.kind}_{task.texts}" if task.kind == "distill" else task.kind, losses)
    return norm


def _ready(run: _Run, batch: Batch) -> Step:
    task, rows = run.config.tasks[batch.task], batch.rows
    if isinstance(rows, PairRows):
        assert task.kind in ("pairs", "crops")
        return pairs_step(rows, task, run.context)
    if isinstance(rows, DistillRows):
        assert task.kind == "distill"
        return distill_step(rows, task, run.context)
    if isinstance(rows, DocumentRows):
        assert task.kind == "documents"
        return documents_step(rows, task, run.context)
    assert task.kind == "ranking"
    return ranking_step(rows, task, run.context)


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
    run.progress.spent_s = run.clock.spent_s
    save_state(run.config.out, run.config, run.encoders, run.optimizer, run.progress)


def _log(run: _Run) -> RunLog | _NoLog:
    if run.ranks.rank:
        return _NoLog()
    log = RunLog(run.config.out, run.progress.step, run.steps, run.config.out.name)
    parameters = sum(parameter.numel() for model in distinct(run.encoders).values() for parameter in model.parameters())
    device = f"{run.ranks.count} x {run.ranks.device.type}" if run.ranks.count > 1 else str(run.ranks.device)
    dtype = str(run.dtype).removeprefix("torch.")
    sys.stderr.write(
        f"{run.config.out}: {parameters:,} parameters on {device}, products in {dtype}, "
        f"steps {run.progress.step + 1:,} to {run.steps:,}\n"
    )
    return log


class _NoLog:
    """Processes other than the first say nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
