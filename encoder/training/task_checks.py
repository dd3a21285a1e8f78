"""Whether tasks can be learnt with the models and the teacher of a run: asked before anything is read, or taken in."""

from __future__ import annotations

import numpy as np

from encoder.errors import InvalidInput
from encoder.model_config import ModelConfig
from encoder.training.config import (
    CropsTask,
    DocumentsTask,
    PairsTask,
    RankingTask,
    Task,
    TrainConfig,
    words_weight_of,
)
from encoder.training.examples import TrainingSet
from encoder.training.teacher import Teacher


def check_tasks(config: TrainConfig, query: ModelConfig, passage: ModelConfig, processes: int) -> None:
    """Refuse, as :class:`InvalidInput`, tasks and packed rows that do not fit the models of queries and passages."""
    for number, task in enumerate(config.tasks):
        place = f"tasks.{number}"
        _check_batch(task, place, processes)
        for width in task.matryoshka:
            if width >= query.embedding_dim:
                raise InvalidInput(
                    "matryoshka",
                    f"{place}.matryoshka holds {width}; give widths below that of embeddings, {query.embedding_dim}.",
                )
        if isinstance(task, DocumentsTask):
            _check_documents(task, place, passage)
    if config.run.pack_tokens is not None:
        for model in (query, passage):
            _check_packing(model)


def check_set(task: Task, training_set: TrainingSet) -> None:
    """Refuse, as :class:`InvalidInput`, pairs that are never one another's negatives: their loss is always 0.

    ``training_set`` has a query with a positive, which sampling has made sure of.
    """
    if not isinstance(task, PairsTask) or task.cosine_weight:
        return
    positives = training_set.groups.positives
    one_query = np.count_nonzero(positives.lengths) == 1
    one_passage = positives.values.min() == positives.values.max()
    others = len(training_set.passages) - (1 if one_passage else len(positives.values))  # to draw negatives from
    if (one_query or one_passage) and not (task.negatives and others > 0):
        raise InvalidInput(
            "sources",
            f"the pairs of source {training_set.name!r} have only one {'query' if one_query else 'passage'}, so that "
            "none is another's negative and nothing would be learnt; give more pairs.",
        )


def check_teacher(task: Task, place: str, teacher: Teacher, model: ModelConfig) -> None:
    """Refuse what a task cannot learn from this teacher: :class:`InvalidInput`; ``place`` names it in the message."""
    cosines = 0.0 if isinstance(task, RankingTask) else task.cosine_weight
    if cosines and teacher.dimension != model.embedding_dim:
        raise InvalidInput(
            "cosine_weight",
            f"{place}.cosine_weight compares embeddings of {model.embedding_dim} numbers with the teacher's of "
            f"{teacher.dimension}; set it to 0, or the model's projection_dim to {teacher.dimension}.",
        )
    if words_weight_of(task) and teacher.shared is None:
        raise InvalidInput(
            "words_weight",
            f"{place}.words_weight compares token ids, and the teacher does not share the model's vocabulary; set it "
            "to 0.",
        )


def _check_batch(task: Task, place: str, processes: int) -> None:
    """Refuse batches in which the positive is the only passage: their loss is 0, whatever the model."""
    if not isinstance(task, PairsTask | CropsTask) or task.negatives or task.cosine_weight:
        return
    if task.batch_size * processes == 1:
        raise InvalidInput(
            "batch_size", f"{place}.batch_size is 1, so that no passage is another query's negative; give 2 or more."
        )


def _check_documents(task: DocumentsTask, place: str, model: ModelConfig) -> None:
    if model.bidirectional:
        raise InvalidInput("kind", f"{place} is documents, which {model.name}, being bidirectional, cannot read.")
    if model.eos_token is None:
        raise InvalidInput("kind", f"{place} is documents, and {model.name} has no eos_token to end chunks with.")
    if model.pooling == "mean" and max(task.widths) > task.piece_tokens:
        raise InvalidInput(
            "piece_tokens",
            f"{place}.piece_tokens is {task.piece_tokens}; with mean pooling a piece must hold a whole document: "
            f"{max(task.widths)}.",
        )


def _check_packing(model: ModelConfig) -> None:
    if model.bidirectional or model.pooling == "mean":
        what = "is bidirectional" if model.bidirectional else "takes the mean of a text's hidden states"
        raise InvalidInput(
            "pack_tokens", f"{model.name} {what} and cannot read packed rows; leave out run.pack_tokens."
        )
