"""Several teachers as one, and embeddings brought to a student's width. How one is read is in ``teacher.py``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoder.errors import InvalidInput
from encoder.tokenizer import Tokenizer
from encoder.training.config import TeacherTable
from encoder.training.embedders import ModelEmbedder, TeacherEmbedder
from encoder.training.examples import TrainingSet
from encoder.training.nearest import Embedder
from encoder.training.ranks import Ranks
from encoder.training.rows import Ids
from encoder.training.teacher import SingleTeacher, Teacher, load_single
from encoder.training.teacher_rules import TeacherInput, TeacherRules

_AXES_FILE = "teacher_axes.safetensors"
_SAMPLE = 128  # texts of each store of each set
_SAMPLE_TOKENS = 254  # of each of them


def load_teacher(table: TeacherTable, rules: TeacherRules, device: torch.device) -> Teacher:
    """Load the teacher or teachers; :class:`~encoder.errors.CheckpointError` where a folder is broken."""
    pairs = zip(table.folder, rules.readings, strict=True)
    found = [load_single(folder, table, reading, device) for folder, reading in pairs]
    kinds = [reading.kind for reading in rules.readings]
    return JointTeacher(found, table.weights, kinds.index("shared ids") if "shared ids" in kinds else None)


class JointTeacher:
    """Teachers side by side: a cosine of theirs is the weighted mean of each one's."""

    def __init__(self, teachers: Sequence[SingleTeacher], weights: Sequence[float] | None, shared: int | None) -> None:
        """Take the teachers, their weights if not all are alike, and which of them reads the student's token ids."""
        self._teachers = teachers
        weights = weights or [1.0] * len(teachers)
        self._lengths = [math.sqrt(weight / sum(weights)) for weight in weights]
        self.dimension: int = sum(each.dimension for each in teachers)
        self.shared = shared
        self.word_embeddings = None if shared is None else teachers[shared].word_embeddings

    def embed(self, texts: TeacherInput) -> Tensor:
        """See :class:`Teacher`."""
        parts = zip(self._lengths, self._teachers, texts, strict=True)
        return torch.cat([length * teacher.embed(part) for length, teacher, part in parts], dim=-1)


class ReducedTeacher:
    """A teacher whose embeddings are turned and cut to fewer numbers, of which the first say most."""

    def __init__(self, teacher: Teacher, axes: Tensor) -> None:
        """Take ``axes (teacher's d, d)``."""
        self._teacher, self._axes = teacher, axes
        self.dimension = axes.shape[1]
        self.word_embeddings, self.shared = teacher.word_embeddings, teacher.shared

    def embed(self, texts: TeacherInput) -> Tensor:
        """See :class:`Teacher`."""
        return F.normalize(self._teacher.embed(texts) @ self._axes, dim=-1)


def with_width(
    teacher: Teacher,
    table: TeacherTable,
    rules: TeacherRules,
    sets: Iterable[TrainingSet],
    folder: Path,
    start: Path | None,
    ranks: Ranks,
) -> Teacher:
    """Bring a teacher's embeddings to ``table.dimension`` numbers, along axes that the first process finds.

    They are those of a sample of all sets, turned to where the model of the folder ``start`` puts the same texts: what
    it has learnt, perhaps of other teachers, stays of use. ``folder`` keeps them, for a run that goes on needs the very
    same. :class:`InvalidInput` where the teacher's embeddings have fewer numbers.
    """
    width = table.dimension
    assert width is not None  # it is asked for
    if width > teacher.dimension:
        raise InvalidInput(
            "dimension", f"teacher.dimension is {width}; the teacher's embeddings have {teacher.dimension} numbers."
        )
    path = folder / _AXES_FILE
    if ranks.rank == 0 and not path.exists():
        embedders: list[Embedder] = [TeacherEmbedder(teacher, rules, ranks.device)]
        if start is not None:
            tokenizer = Tokenizer.load(rules.readings[0].tokenizer_folder)
            embedders.append(ModelEmbedder.load(start, tokenizer, _SAMPLE_TOKENS, ranks.device))
        parts = [[torch.from_numpy(each.embed_passages(texts)) for each in embedders] for texts in _sample(sets)]
        found, *known = [torch.cat(list(part)) for part in zip(*parts, strict=True)]
        axes = whitened(found, principal_axes(found, width), table.whitening)
        if known and known[0].shape[1] == width:
            axes = axes @ rotation(F.normalize(found @ axes, dim=-1), known[0])
        save_file({"axes": axes.contiguous()}, path)
    ranks.wait()
    return ReducedTeacher(teacher, load_file(path)["axes"].to(ranks.device))


def whitened(embeddings: Tensor, axes: Tensor, share: float) -> Tensor:
    """Lengthen ``axes (d, width)`` along which ``embeddings (n, d)`` are short.

    With a ``share`` of 1 they become as long along all (whitening, Su et al. 2021, arXiv 2103.15316, without the mean
    taken out).
    """
    spread = (embeddings @ axes).square().mean(0)
    return axes * spread.clamp_min(1e-6) ** (-share / 2)


def rotation(embeddings: Tensor, wanted: Tensor) -> Tensor:
    """Give the orthogonal ``(d, d)`` that turns ``embeddings (n, d)`` as near as can be to those ``wanted (n, d)``.

    Orthogonal Procrustes problem (Schoenemann 1966).
    """
    left, _, right = torch.linalg.svd((embeddings.T @ wanted).double())
    turned: Tensor = (left @ right).float()
    return turned


def _sample(sets: Iterable[TrainingSet]) -> Iterator[list[Ids]]:
    for found in sets:
        for store in (found.queries, found.passages):
            numbers = np.flatnonzero(store.lengths > 0)
            if len(numbers):
                chosen = numbers[np.unique(np.linspace(0, len(numbers) - 1, _SAMPLE).astype(np.int64))]
                yield [store[int(number)][:_SAMPLE_TOKENS] for number in chosen]


def principal_axes(embeddings: Tensor, dimension: int) -> Tensor:
    """Give the directions ``(d, dimension)`` along which ``embeddings (n, d)`` are longest, the longest first.

    Principal components without the mean taken out: what is kept are the products, and the mean is a part of them.
    """
    products = (embeddings.T @ embeddings).double()
    axes: Tensor = torch.linalg.eigh(products).eigenvectors.flip(1)[:, :dimension].float()
    return axes
