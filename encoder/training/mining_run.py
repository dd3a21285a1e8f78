"""Mines all sources of a training configuration: ``mamba-search mine``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from encoder.errors import InvalidInput
from encoder.tokenizer import Tokenizer
from encoder.training.config import TrainConfig
from encoder.training.embedders import ModelEmbedder, TeacherEmbedder
from encoder.training.examples import prepare
from encoder.training.mining import Mined, mine
from encoder.training.nearest import Embedder
from encoder.training.ranks import choose_device
from encoder.training.teacher import load_teacher, teacher_rules
from encoder.training.telling import Told


def mine_all(config: TrainConfig, model: Path | None, told: Told) -> Iterator[tuple[str, Mined]]:
    """Prepare the sources, and mine those with ``mined = true``; give each one's name and what came of it.

    Candidates come from BM25 and from the embeddings of ``model`` (what the configuration starts from unless given);
    with a teacher in the configuration the teacher judges, else the model does. :class:`InvalidInput` where no source
    asks for it.
    """
    wanted = [source for source in config.sources if source.mined]
    if not wanted:
        raise InvalidInput(
            "mined", "no source of the configuration has mined = true; set it where negatives are wanted."
        )
    folder = config.model.tokenizer_folder
    tokenizer = Tokenizer.load(folder)
    processes = config.processes or os.cpu_count() or 1
    sets = prepare(
        wanted,
        folder,
        config.cache,
        processes,
        progress=lambda name, rows: told(name, "rows read", rows, 0),
        with_mined=False,
    )
    device = choose_device(config.device)
    embedders: dict[str, Embedder] = {}
    start = model or config.model.start_folder
    if start is not None:
        embedders["model"] = ModelEmbedder.load(start, tokenizer, config.mining.tokens_max, device)
    if config.teacher is not None:
        rules = teacher_rules(config.teacher, folder)
        embedders["teacher"] = TeacherEmbedder(load_teacher(config.teacher, rules, device), rules, device)
    for found in sets:

        def tell(what: str, done: int, total: int, name: str = found.name) -> None:
            told(name, what, done, total)

        yield found.name, mine(found, tokenizer, embedders, config.mining, device, tell)
