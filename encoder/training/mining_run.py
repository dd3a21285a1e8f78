"""Mines all sources of a training configuration: ``mamba-search mine``, and the same by torchrun with several GPUs."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path

from encoder.errors import InvalidInput, MambaSearchError
from encoder.progress import ReportOf, reporting
from encoder.tokenizer import Tokenizer
from encoder.training.config import TrainConfig
from encoder.training.embedders import ModelEmbedder, TeacherEmbedder
from encoder.training.examples import TrainingSet, prepare
from encoder.training.joint_teacher import load_teacher
from encoder.training.mining import Mined, choose, find_near
from encoder.training.mining_config import MiningConfig
from encoder.training.nearest import Embedder, Neighbours
from encoder.training.ranks import Ranks, joined_ranks
from encoder.training.teacher_rules import teacher_rules


def mine_all(config: TrainConfig, model: Path | None) -> Iterator[tuple[str, Mined]]:
    """Prepare the sources, and mine those with ``mined = true``; give each one's name and what came of it.

    Candidates come from BM25 and from the embeddings of ``model`` (what the configuration starts from unless given);
    with a teacher in the configuration the teacher judges, else the model does. While a model reads one source,
    ``processes`` choose among the candidates of those before. Several processes of torchrun share the sources out.
    :class:`InvalidInput` where no source asks for it.
    """
    wanted = [source for source in config.sources if source.mined]
    if not wanted:
        raise InvalidInput(
            "mined", "no source of the configuration has mined = true; set it where negatives are wanted."
        )
    with joined_ranks(config.device, exchanges=False) as ranks, reporting(bars=ranks.count == 1) as report_of:
        found = prepare(
            wanted,
            config.model.tokenizer_folder,
            config.cache,
            config.process_count,
            report_of=report_of,
            with_mined=False,
        )
        yield from _mine(
            shares(found, ranks.count)[ranks.rank], config, _embedders(config, model, ranks), ranks, report_of
        )


def shares(sets: Sequence[TrainingSet], count: int) -> list[list[TrainingSet]]:
    """Share sets out among processes, the largest first, each to who has least."""
    found: list[list[TrainingSet]] = [[] for _ in range(count)]
    work = [0] * count
    for each in sorted(sets, key=_work, reverse=True):
        least = work.index(min(work))
        found[least].append(each)
        work[least] += _work(each)
    return found


def _work(training_set: TrainingSet) -> int:
    return len(training_set.queries.values) + len(training_set.passages.values)


def _embedders(config: TrainConfig, model: Path | None, ranks: Ranks) -> dict[str, Embedder]:
    folder = config.model.tokenizer_folder
    found: dict[str, Embedder] = {}
    start = model or config.model.start_folder
    if start is not None:
        found["model"] = ModelEmbedder.load(start, Tokenizer.load(folder), config.mining.tokens_max, ranks.device)
    if config.teacher is not None:
        rules = teacher_rules(config.teacher, folder)
        found["teacher"] = TeacherEmbedder(load_teacher(config.teacher, rules, ranks.device), rules, ranks.device)
    return found


def _mine(
    sets: Sequence[TrainingSet], config: TrainConfig, embedders: dict[str, Embedder], ranks: Ranks, report_of: ReportOf
) -> Iterator[tuple[str, Mined]]:
    tokenizer = Tokenizer.load(config.model.tokenizer_folder)
    waiting: deque[tuple[str, Future[Mined]]] = deque()
    with ExitStack() as stack:
        # Not forked: a fork of a process that runs threads, as CUDA does, may hang.
        context = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(config.process_count, mp_context=context))
        stack.callback(pool.shutdown, cancel_futures=True)
        for each in sets:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="mining-", dir=each.folder))
            near = find_near(each, embedders, config.mining, ranks.device, Path(work), report_of(each.name))
            waiting.append((each.name, pool.submit(_choose, each, tokenizer, near, config.mining)))
            while waiting and waiting[0][1].done():
                name, future = waiting.popleft()
                yield name, _result(future)
        for name, future in waiting:
            yield name, _result(future)


def _result(future: Future[Mined]) -> Mined:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise MambaSearchError(
            "A process that chooses negatives was ended, perhaps for want of memory; set processes to fewer."
        ) from error


def _choose(training_set: TrainingSet, tokenizer: Tokenizer, near: Sequence[Neighbours], config: MiningConfig) -> Mined:
    return choose(training_set, tokenizer, near, config, lambda *_: None)
