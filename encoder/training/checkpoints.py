"""What a run starts from, and what it keeps so that it can go on exactly: weights, optimizer, step, time spent."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from encoder.checkpoint import load_model, save_model
from encoder.errors import CheckpointError, InvalidInput, StorageFull
from encoder.hub import local_folder
from encoder.layouts.opening import find_tokenizer
from encoder.model import EncoderModel
from encoder.tokenizer import TOKENIZER_FILE
from encoder.training.config import TrainConfig
from encoder.training.gradient_cache import Role
from encoder.training.optimizing import Optimizer
from encoder.training.teacher import Teacher

STATE_FILE = "state.pt"
Encoders = Mapping[Role, EncoderModel]


@dataclass(slots=True)
class Progress:
    """How far a run is."""

    step: int = 0
    spent_s: float = 0.0
    tokens: int = 0  # read by the student, padding left out


def start_encoders(config: TrainConfig, device: torch.device, teacher: Teacher | None) -> Encoders:
    """Build the encoders of both roles, one model or two, on a device, in float32, ready to be trained.

    A fresh model takes its token embeddings from a teacher with the same vocabulary and width.
    """
    table = config.model
    torch.manual_seed(config.run.seed)
    if table.fresh is not None:
        query = EncoderModel(table.fresh).to(device)
        given = None if teacher is None else teacher.word_embeddings
        if given is not None and given.shape == query.backbone.embedding.weight.shape:
            with torch.no_grad():
                query.backbone.embedding.weight.copy_(given)
        passage = query
        if table.separate:
            passage = EncoderModel(table.fresh).to(device)
            passage.load_state_dict(query.state_dict())
    else:
        assert table.start_folder is not None  # the configuration has been checked
        assert table.passage_folder is not None
        query = load_model(table.start_folder, device)
        passage = load_model(table.passage_folder, device) if table.separate else query
    if query.config.embedding_dim != passage.config.embedding_dim:
        raise CheckpointError(
            f"{table.start} embeds in {query.config.embedding_dim} numbers and {table.passage_start} in "
            f"{passage.config.embedding_dim}; give models of one width, or projections to one."
        )
    for encoder in (query, passage):
        encoder.train().requires_grad_(requires_grad=True)
    return {"query": query, "passage": passage}


def distinct(encoders: Encoders) -> dict[str, EncoderModel]:
    """Name each model once: ``shared``, or ``query`` and ``passage``."""
    if encoders["query"] is encoders["passage"]:
        return {"shared": encoders["query"]}
    return {"query": encoders["query"], "passage": encoders["passage"]}


def save_state(out: Path, config: TrainConfig, encoders: Encoders, optimizer: Optimizer, progress: Progress) -> None:
    """Write ``state.pt`` so that a crash leaves the old file or the new one.

    :class:`StorageFull` where it cannot be written; the old one stays.
    """
    state = {
        "models": {name: model.config.model_dump() for name, model in distinct(encoders).items()},
        "weights": {name: model.state_dict() for name, model in distinct(encoders).items()},
        "optimizer": optimizer.state_dict(),
        "step": progress.step,
        "spent_s": progress.spent_s,
        "tokens": progress.tokens,
        "learning": what_is_learnt(config),
    }
    partial = out / (STATE_FILE + ".partial")
    try:
        torch.save(state, partial)
        partial.replace(out / STATE_FILE)
    except (OSError, RuntimeError) as error:  # torch says so in an error of its own
        partial.unlink(missing_ok=True)
        raise StorageFull(f"{partial} cannot be written; make room, and the same command goes on.") from error


def load_state(out: Path, config: TrainConfig, encoders: Encoders, optimizer: Optimizer) -> Progress:
    """Go on from ``state.pt`` where there is one.

    :class:`CheckpointError` where it is broken or of another architecture, :class:`InvalidInput` where it belongs to a
    run with other data, tasks or optimizer.
    """
    path = out / STATE_FILE
    if not path.exists():
        return Progress()
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        models, learning = state["models"], state["learning"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a training state, or is cut short; delete it to start again.") from error
    for name, model in distinct(encoders).items():
        _check_architecture(path, models.get(name), model)
    for key, value in what_is_learnt(config).items():
        if learning.get(key) != value:
            raise InvalidInput(
                key, f"{path} belongs to a run with another {key}; give another out, or delete it to start again."
            )
    for name, model in distinct(encoders).items():
        model.load_state_dict(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(state["step"], state["spent_s"], state["tokens"])


def save_encoders(out: Path, config: TrainConfig, encoders: Encoders) -> None:
    """Write the model folder ``out``, or the folders ``out/query`` and ``out/passage``, tokenizers included."""
    tokenizer = find_tokenizer(local_folder(config.model.tokenizer_folder))
    assert tokenizer is not None  # it was read when the run began
    for name, model in distinct(encoders).items():
        folder = out if name == "shared" else out / name
        save_model(folder, model)
        shutil.copyfile(tokenizer, folder / TOKENIZER_FILE)


def what_is_learnt(config: TrainConfig) -> dict[str, Any]:
    """Give what a checkpoint and the run that goes on from it must share; lengths, logs and devices may differ."""
    values = config.model_dump(mode="json")
    learning = {key: values[key] for key in ("optimizer", "sources", "tasks")}
    teacher = values["teacher"] and {key: values["teacher"][key] for key in ("folder", "dimension", "tokens_max")}
    return learning | {"teacher": teacher, "seed": config.run.seed}


def _check_architecture(path: Path, found: Mapping[str, object] | None, model: EncoderModel) -> None:
    wanted = model.config.model_dump()
    if found is None:
        raise CheckpointError(
            f"{path} holds one model where the configuration asks for two, or two for one; give another out."
        )
    for key, value in wanted.items():
        if key != "name" and found.get(key) != value:
            raise CheckpointError(
                f"{path} holds a model with {key} = {found.get(key)!r}, and the configuration asks for {value!r}; give "
                "another out, or delete it to start again."
            )
