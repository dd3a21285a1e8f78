"""From a batch to what the encoders read and what is made of their embeddings: pairs, distillation, rankings.

Documents in one pass are in ``encoder/training/documents.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from encoder.training.config import CropsTask, DistillTask, PairsTask, RankingTask
from encoder.training.gradient_cache import LossOf, Reading, Role, in_slices
from encoder.training.objectives import (
    Losses,
    cosine_loss,
    info_nce,
    no_negatives,
    over_widths,
    ranking_loss,
    relational_loss,
)
from encoder.training.ranks import Ranks
from encoder.training.rows import TextRows
from encoder.training.teacher import Teacher
from encoder.training.teacher_rules import TeacherInput
from encoder.training.word_overlap import WordOverlap


class PairRows(NamedTuple):
    """Queries and passages; those of query i are ``passages[i * k : (i + 1) * k]``, its positive first."""

    queries: TextRows
    passages: TextRows
    query_numbers: Tensor  # (b,) equal for equal texts
    passage_numbers: Tensor  # (b k,)
    query_teacher: TeacherInput | None
    passage_teacher: TeacherInput | None


class DistillRows(NamedTuple):
    """Texts of one kind."""

    role_is_query: bool
    texts: TextRows
    teacher: TeacherInput


class RankingRows(NamedTuple):
    """Queries, each with as many candidates, and how a ranking weighs them."""

    queries: TextRows
    passages: TextRows  # (b c, l)
    target: Tensor  # (b, c) rows sum to 1; 0 where there is no candidate


@dataclass(frozen=True, slots=True)
class Step:
    """What one step learns from."""

    readings: tuple[Reading, ...]
    losses_of: LossOf


@dataclass(frozen=True, slots=True)
class StepContext:
    """What all tasks share."""

    teacher: Teacher | None
    ranks: Ranks
    slice_tokens: int | None
    words: WordOverlap | None = None

    def judge(
        self, queries: TeacherInput | None, passages: TeacherInput | None, cosines: Tensor, words_weight: float
    ) -> Tensor:
        """Score all pairs of all processes: the teacher's ``cosines (q, m)``, and as configured common words."""
        if not words_weight:
            return cosines
        assert self.words is not None  # made where a task asks for it
        return cosines + words_weight * self.words.scores(self._shared_ids(queries), self._shared_ids(passages))

    def _shared_ids(self, texts: TeacherInput | None) -> TextRows:
        """Gather what the teacher that shares the vocabulary reads."""
        assert self.teacher is not None
        assert self.words is not None
        assert texts is not None
        assert self.teacher.shared is not None  # the task has been checked
        rows = texts[self.teacher.shared]
        assert isinstance(rows, TextRows)
        if self.ranks.count == 1:
            return rows
        padded = F.pad(rows.tokens, (0, self.words.width_max - rows.tokens.shape[1]))
        return TextRows(self.ranks.gather(padded, equal=False), self.ranks.gather(rows.ends, equal=False))

    def embed(self, texts: TeacherInput | None) -> Tensor:
        """Ask the teacher, in every process for its own texts, and join the answers: ``(all n, d)``."""
        assert self.teacher is not None  # the configuration has been checked
        assert texts is not None
        return self.ranks.gather(self.teacher.embed(texts))


def pairs_step(batch: PairRows, task: PairsTask | CropsTask, context: StepContext) -> Step:
    """InfoNCE, and beside it what the teacher thinks of the same pairs."""
    gather = context.ranks.gather
    query_numbers, passage_numbers = gather(batch.query_numbers), gather(batch.passage_numbers)
    positives = torch.arange(len(query_numbers), device=query_numbers.device) * (1 + task.negatives)
    target: tuple[Tensor, Tensor] | None = None
    if batch.query_teacher is not None:
        target = context.embed(batch.query_teacher), context.embed(batch.passage_teacher)
    teacher_scores = None if target is None else target[0] @ target[1].T
    excluded = no_negatives(query_numbers, passage_numbers, positives, teacher_scores, task.false_negative_margin)
    judged: Tensor | None = None
    if teacher_scores is not None:
        judged = context.judge(batch.query_teacher, batch.passage_teacher, teacher_scores, task.words_weight)

    def contrast(queries: Tensor, passages: Tensor) -> Tensor:
        scores = queries @ passages.T
        loss = info_nce(scores, positives, task.temperature, excluded)
        if task.symmetric:
            backwards = info_nce(
                scores[:, positives].T,
                torch.arange(len(scores), device=scores.device),
                task.temperature,
                excluded[:, positives].T,
            )
            loss = (loss + backwards) / 2
        return loss

    def relate(queries: Tensor, passages: Tensor) -> Tensor:
        assert judged is not None
        return relational_loss(queries @ passages.T, judged, task.temperature)

    def losses_of(embeddings: Sequence[Tensor]) -> Losses:
        both = [gather(part) for part in embeddings]
        losses: Losses = {}
        if task.info_nce_weight:
            losses["info_nce"] = task.info_nce_weight * over_widths(task.matryoshka, both, contrast)
        if task.relational_weight:
            losses["relational"] = task.relational_weight * over_widths(task.matryoshka, both, relate)
        if task.cosine_weight:
            assert target is not None
            losses["cosine"] = task.cosine_weight * (cosine_loss(both[0], target[0]) + cosine_loss(both[1], target[1]))
        return losses

    readings = (
        in_slices("query", batch.queries, context.slice_tokens),
        in_slices("passage", batch.passages, context.slice_tokens),
    )
    return Step(readings, losses_of)


def distill_step(batch: DistillRows, task: DistillTask, context: StepContext) -> Step:
    """Each text where the teacher places it, and as near to the batch's others."""
    target = context.embed(batch.teacher)
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)  # a text is always nearest to itself
    similarities = target @ target.T if task.relational_weight else None

    def relate(texts: Tensor) -> Tensor:
        assert similarities is not None
        return relational_loss(texts @ texts.T, similarities, task.temperature, itself)

    def losses_of(embeddings: Sequence[Tensor]) -> Losses:
        texts = context.ranks.gather(embeddings[0])
        losses: Losses = {}
        if task.cosine_weight:
            losses["cosine"] = task.cosine_weight * cosine_loss(texts, target)
        if task.relational_weight:
            losses["relational"] = task.relational_weight * over_widths(task.matryoshka, [texts], relate)
        return losses

    role: Role = "query" if batch.role_is_query else "passage"
    return Step((in_slices(role, batch.texts, context.slice_tokens),), losses_of)


def ranking_step(batch: RankingRows, task: RankingTask, context: StepContext) -> Step:
    """Order each query's candidates as the ranking does."""
    target = context.ranks.gather(batch.target)

    def rank(queries: Tensor, passages: Tensor) -> Tensor:
        candidates = passages.unflatten(0, (len(queries), -1))  # (q, c, d)
        return ranking_loss(torch.einsum("qd,qcd->qc", queries, candidates), target, task.temperature)

    def losses_of(embeddings: Sequence[Tensor]) -> Losses:
        both = [context.ranks.gather(part) for part in embeddings]
        return {"ranking": over_widths(task.matryoshka, both, rank)}

    readings = (
        in_slices("query", batch.queries, context.slice_tokens),
        in_slices("passage", batch.passages, context.slice_tokens),
    )
    return Step(readings, losses_of)
