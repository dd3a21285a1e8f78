"""Batches, made beside the loop: what step N reads, as tensors, in other processes so that the launches never wait.

Which task and which source a step draws follows from the seed and the step, the same in all processes; what it draws,
from its rank, too. Where other texts of a batch are negatives, all are of one source, so that they are hard to tell
apart; other tasks draw from all sources at once, so that no step pulls towards a single one.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encoder.layouts.opening import open_model
from encoder.model_config import ModelConfig
from encoder.progress import reporting
from encoder.tokenizer import Tokenizer
from encoder.training.config import DistillTask, DocumentsTask, Task, TrainConfig
from encoder.training.examples import TrainingSet, prepare
from encoder.training.joining import join_sets
from encoder.training.making import Maker, Place, Rows
from encoder.training.ranks import Ranks
from encoder.training.rows import RowRules
from encoder.training.shuffling import turn
from encoder.training.sources import expand
from encoder.training.task_checks import check_set, check_tasks
from encoder.training.teacher_rules import teacher_rules
from encoder.training.token_store import Numbers

_WORKERS_ON_GPU = 4
_AHEAD = 8  # batches that each worker has ready
_TASKS_MAX = 1009


class Batch(NamedTuple):
    """What one step of one process reads."""

    task: int
    rows: Rows
    tokens: int  # that the student reads
    places: int  # in its rows, padding included

    def to(self, device: torch.device) -> Batch:
        """Copy to a device; from pinned memory nothing waits for it."""
        return self if device.type == "cpu" else self._replace(rows=_move(self.rows, device))


@dataclass(frozen=True)
class Feed(Dataset[Batch]):
    """All batches of a run, by the number of the step. Pickled for other processes, which map the same files."""

    config: TrainConfig
    maker: Maker
    sources: tuple[TrainingSet, ...]
    sets: tuple[tuple[TrainingSet, ...], ...]  # that each task draws from: sources, or several as one
    weights: tuple[tuple[float, ...], ...]  # how often each of them is drawn
    steps: int
    rank: int
    world_size: int

    @classmethod
    def open(cls, config: TrainConfig, ranks: Ranks) -> Feed:
        """Prepare the data of a run; errors are those of data and tokenizer, and of tasks that the models cannot learn.

        Of several processes one tokenizes, whichever comes first, and the others wait for it as long as it takes: at a
        lock of the cache, not in a collective operation, which would time out.
        """
        query, passage = _model_configs(config)
        check_tasks(config, query, passage, ranks.count)
        teacher = None
        if config.teacher is not None:
            teacher = teacher_rules(config.teacher, config.model.tokenizer_folder)
        rules = RowRules.of(query, passage, config.model.tokenizer_folder)
        maker = Maker(rules, teacher, config.run.pack_tokens, _ordinary_ids(config))
        with reporting(bars=ranks.count == 1) as report_of:
            found = prepare(
                config.sources,
                config.model.tokenizer_folder,
                config.cache,
                config.process_count,
                report_of=report_of,
            )
        by_name = {each.name: each for each in found}
        sets, weights = [], []
        for task in config.tasks:
            sources = [source for source in config.sources if not task.sources or source.name in task.sources]
            chosen = [by_name[part.name] for part in expand(sources)]
            shares = _weights(maker, task, chosen, ranks.count)
            if _draws_from_all(task):
                chosen, shares = _join(chosen, shares)
            sets.append(tuple(chosen))
            weights.append(tuple(shares))
        return cls(
            config=config,
            maker=maker,
            sources=tuple(found),
            sets=tuple(sets),
            weights=tuple(weights),
            steps=_steps(config, maker, sets[0], ranks.count),
            rank=ranks.rank,
            world_size=ranks.count,
        )

    def check(self) -> None:
        """Refuse what cannot be drawn or learnt, as :class:`InvalidInput`: out of another process it would come raw."""
        for task, sets in zip(self.config.tasks, self.sets, strict=True):
            for each in sets:
                self.maker.epoch_steps(each, task, self.world_size)
                check_set(task, each)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of a step."""
        seed = self.config.run.seed
        task = turn([each.weight for each in self.config.tasks], seed, step)
        # The seed of its own keeps two tasks from drawing the same texts of a source at the same time.
        seed = seed * _TASKS_MAX + task.choice
        chosen = turn(self.weights[task.choice], seed, task.occurrence)
        place = Place(seed, chosen.occurrence, self.rank, self.world_size)
        made = self.maker.make(self.sets[task.choice][chosen.choice], self.config.tasks[task.choice], place)
        return Batch(task.choice, *made)

    def batches(self, first: int, last: int, device: torch.device) -> Iterator[Batch]:
        """Give the batches of steps ``first`` to ``last`` (exclusive), made ahead by other processes."""
        on_gpu = device.type == "cuda"
        workers = self.config.run.workers
        if workers is None:
            workers = _WORKERS_ON_GPU if on_gpu else 0
        return iter(
            DataLoader(
                self,
                batch_size=None,
                sampler=range(first, last),
                num_workers=workers,
                prefetch_factor=_AHEAD if workers else None,
                # Not forked: a fork of a process that runs threads, as CUDA does, may hang.
                multiprocessing_context="spawn" if workers else None,
                pin_memory=on_gpu,
                worker_init_fn=_outlive_interrupt,
            )
        )


def _outlive_interrupt(_worker: int) -> None:
    """Let a Ctrl-C, which reaches these processes too, pass: the step under way still needs its batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _model_configs(config: TrainConfig) -> tuple[ModelConfig, ModelConfig]:
    """Read how the models of queries and of passages are built, one model or two."""
    table = config.model
    if table.fresh is not None:
        return table.fresh, table.fresh
    assert table.start_folder is not None  # the configuration has been checked
    assert table.passage_folder is not None
    return open_model(table.start_folder).config, open_model(table.passage_folder).config


def _ordinary_ids(config: TrainConfig) -> Numbers | None:
    """Give the tokens that may be set in place of others, where a task does so."""
    if not any(isinstance(task, DistillTask) and task.replaced for task in config.tasks):
        return None
    return np.array(Tokenizer.load(config.model.tokenizer_folder).ordinary_ids())


def _weights(maker: Maker, task: Task, sets: Sequence[TrainingSet], processes: int) -> list[float]:
    """Weigh sources as configured; those without a weight so that each example is drawn as often, 1 in the mean."""
    steps = {each.name: maker.epoch_steps(each, task, processes) for each in sets if each.weight is None}
    mean = sum(steps.values()) / max(len(steps), 1)
    return [steps[each.name] / mean if each.weight is None else each.weight for each in sets]


def _draws_from_all(task: Task) -> bool:
    """Tell whether the texts of a task's batches are no negatives of one another."""
    return isinstance(task, DistillTask) or (isinstance(task, DocumentsTask) and not task.info_nce_weight)


def _join(sets: list[TrainingSet], weights: list[float]) -> tuple[list[TrainingSet], list[float]]:
    """Make one set of those without a weight of their own, with the weight of all of them."""
    pairs = list(zip(sets, weights, strict=True))
    alike = [pair for pair in pairs if pair[0].weight is None]
    if len(alike) < 2:
        return sets, weights
    others = [pair for pair in pairs if pair[0].weight is not None]
    joined = join_sets([each for each, _ in alike])
    rest = sum(weight for _, weight in alike)
    return [joined, *(each for each, _ in others)], [rest, *(weight for _, weight in others)]


def _steps(config: TrainConfig, maker: Maker, sets: Sequence[TrainingSet], processes: int) -> int:
    """Count the steps of a run; epochs are of the first task, which takes its part of them."""
    if config.run.steps is not None:
        return config.run.steps
    assert config.run.epochs is not None  # one of them is given
    first = config.tasks[0]
    part = first.weight / sum(task.weight for task in config.tasks)
    of_one_epoch = sum(maker.epoch_steps(each, first, processes) for each in sets)
    return max(1, math.ceil(config.run.epochs * of_one_epoch / part))


def _move(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - rows nest tensors in tuples and lists
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, list):
        return [_move(each, device) for each in value]
    if isinstance(value, tuple):
        parts = [_move(each, device) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
