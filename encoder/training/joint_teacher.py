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
from encoder.training.config import TeacherTable
from encoder.training.embedders import TeacherEmbedder
from encoder.training.examples import TrainingSet
from encoder.training.ranks import Ranks
from encoder.training.rows import Ids, TextRows
from encoder.training.teacher import Teacher, TeacherInput, TeacherRules, load_single

_AXES_FILE = "teacher_axes.safetensors"
_SAMPLE = 128  # texts of each store of each set
_SAMPLE_TOKENS = 254  # of each of them


def load_teacher(table: TeacherTable, rules: TeacherRules, device: torch.device) -> Teacher:
    """Load the teacher or teachers; :class:`~encoder.errors.CheckpointError` where a folder is broken."""
    found = [load_single(folder, table, rules, device) for folder in table.folder]
    return found[0] if len(found) == 1 else JointTeacher(found)


class JointTeacher:
    """Several teachers side by side: a cosine of theirs is the mean of each one's."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self._teachers = teachers
        self.dimension: int = sum(each.dimension for each in teachers)
        self.word_embeddings = teachers[0].word_embeddings
        self.takes_means = all(each.takes_means for each in teachers)

    def embed(self, texts: TeacherInput) -> Tensor:
        """See :class:`~encoder.training.teacher.Teacher`."""
        return self._join([each.embed(texts) for each in self._teachers])

    def embed_prefixes(self, texts: TextRows, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`~encoder.training.teacher.Teacher`."""
        found = [each.embed_prefixes(texts, prefixes) for each in self._teachers]
        return self._join([whole for whole, _ in found]), self._join([before for _, before in found])

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        joined: Tensor = torch.cat([*parts], dim=-1) / math.sqrt(len(parts))
        return joined


class ReducedTeacher:
    """A teacher whose embeddings are turned and cut to fewer numbers, of which the first say most."""

    def __init__(self, teacher: Teacher, axes: Tensor) -> None:
        """Take ``axes (teacher's d, d)``, orthogonal columns."""
        self._teacher, self._axes = teacher, axes
        self.dimension = axes.shape[1]
        self.word_embeddings, self.takes_means = teacher.word_embeddings, teacher.takes_means

    def embed(self, texts: TeacherInput) -> Tensor:
        """See :class:`~encoder.training.teacher.Teacher`."""
        return self._reduce(self._teacher.embed(texts))

    def embed_prefixes(self, texts: TextRows, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`~encoder.training.teacher.Teacher`."""
        whole, before = self._teacher.embed_prefixes(texts, prefixes)
        return self._reduce(whole), self._reduce(before)

    def _reduce(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings @ self._axes, dim=-1)


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

    They are those of a sample of all sets, or, where the model of the folder ``start`` has learnt some, these.
    ``folder`` keeps them, for a run that goes on needs the very same. :class:`InvalidInput` where the teacher's
    embeddings have fewer numbers.
    """
    width = table.dimension
    assert width is not None  # it is asked for
    if width > teacher.dimension:
        raise InvalidInput(
            "dimension", f"teacher.dimension is {width}; the teacher's embeddings have {teacher.dimension} numbers."
        )
    path = folder / _AXES_FILE
    learnt = None if start is None else start / _AXES_FILE
    if ranks.rank == 0 and not path.exists():
        embedder = TeacherEmbedder(teacher, rules, ranks.device)
        found = torch.from_numpy(np.concatenate([embedder.embed_passages(texts) for texts in _sample(sets)]))
        known = learnt is not None and learnt.exists()
        axes = load_file(learnt)["axes"] if learnt is not None and known else principal_axes(found, width).contiguous()
        save_file({"axes": axes, "spread": (found @ axes).square().mean(0)}, path)
    ranks.wait()
    stored = load_file(path)
    return ReducedTeacher(teacher, whitened(stored["axes"], stored["spread"], table.whitening).to(ranks.device))


def whitened(axes: Tensor, spread: Tensor, share: float) -> Tensor:
    """Lengthen ``axes (teacher's d, d)``, along which embeddings have the mean squares ``spread (d,)``.

    With a ``share`` of 1 all have the same (whitening, Su et al. 2021, arXiv 2103.15316, without the mean taken out).
    """
    return axes * spread.clamp_min(1e-6) ** (-share / 2)


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
