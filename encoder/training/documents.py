"""Documents in one pass: an end-of-sequence token after each chunk, and losses on every chunk's embedding.

A chunk's embedding shall say what the teacher says of the chunk, read alone; before either stands the document's
opening, as passages have the title of theirs. And it shall be what the document's queries find: the teacher chooses
which chunk of its document answers a query, and the other chunks, of this and of all other documents, are the
negatives. Long documents are read in pieces with the state carried on and detached, so that memory does not grow with
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from encoder.training.config import DocumentsTask
from encoder.training.gradient_cache import Reading, in_slices
from encoder.training.objectives import Losses, cosine_loss, info_nce, over_widths, relational_loss
from encoder.training.rows import TextRows, fill_up
from encoder.training.tasks import Step, StepContext
from encoder.training.teacher_rules import TeacherInput

_ROWS_MAX = 2**20  # of one process


class DocumentRows(NamedTuple):
    """Documents as rows, in pieces; ``n`` counts the chunks of all, in order of piece, row and place."""

    pieces: list[TextRows]  # packed, or in pieces with row and position of each chunk's last token (n, 2)
    owners: Tensor  # (n,) row of each chunk's document
    chunks: TeacherInput | None  # each alone
    queries: TextRows  # perhaps none
    query_teacher: TeacherInput | None
    query_owners: Tensor  # (q,) row of the document that each is about
    query_numbers: Tensor  # (q,) equal for equal texts


class Answers(NamedTuple):
    """Which chunk each query shall find; see :func:`choose_answers`."""

    positives: Tensor  # (q,) columns
    excluded: Tensor  # (q, n) chunks that are no negatives


def documents_step(batch: DocumentRows, task: DocumentsTask, context: StepContext) -> Step:
    """Each chunk's embedding where the teacher places the chunk alone, and where its queries find it."""
    gather = partial(context.ranks.gather, equal=False)
    queries = gather(batch.query_numbers)
    asks = len(queries) > 0 and (task.info_nce_weight > 0 or task.relational_weight > 0)  # the same in all processes
    target = None if batch.chunks is None else gather(_embed(context, batch.chunks, len(batch.owners)))
    readings = [Reading("passage", tuple(batch.pieces), carried=len(batch.pieces) > 1)]
    judged: Tensor | None = None
    answers: Answers | None = None
    if asks and batch.query_teacher is not None and target is not None:
        # How many queries documents have differs from batch to batch; their rows shall not.
        filled = fill_up(batch.queries, len(batch.pieces[0].tokens) * task.queries)
        readings.append(in_slices("query", filled, context.slice_tokens))
        asked = gather(_embed(context, batch.query_teacher, len(batch.query_numbers)))
        # Rows are numbered in each process; together they need numbers of their own.
        shift = context.ranks.rank * _ROWS_MAX
        owners = gather(batch.query_owners + shift), gather(batch.owners + shift)
        judged = context.judge(batch.query_teacher, batch.chunks, asked @ target.T, task.words_weight)
        answers = choose_answers(judged, *owners, queries, task.false_negative_margin)

    def contrast(chunks: Tensor, queries: Tensor) -> Tensor:
        assert answers is not None
        return info_nce(queries @ chunks.T, answers.positives, task.temperature, answers.excluded)

    def relate(chunks: Tensor, queries: Tensor) -> Tensor:
        assert judged is not None
        return relational_loss(queries @ chunks.T, judged, task.temperature)

    def losses_of(embeddings: Sequence[Tensor]) -> Losses:
        counts = (len(batch.owners), len(batch.query_numbers))
        joined = [gather(part[:count]) for part, count in zip(embeddings, counts, strict=False)]
        losses: Losses = {}
        if task.cosine_weight and target is not None:
            losses["cosine"] = task.cosine_weight * cosine_loss(joined[0], target)
        if task.info_nce_weight and answers is not None:
            losses["info_nce"] = task.info_nce_weight * over_widths(task.matryoshka, joined, contrast)
        if task.relational_weight and judged is not None:
            losses["relational"] = task.relational_weight * over_widths(task.matryoshka, joined, relate)
        return losses

    return Step(tuple(readings), losses_of)


def _embed(context: StepContext, texts: TeacherInput, count: int) -> Tensor:
    assert context.teacher is not None  # the configuration has been checked
    if not count:
        return torch.empty(0, context.teacher.dimension, device=context.ranks.device)
    return context.teacher.embed(texts)


def choose_answers(
    scores: Tensor, query_owners: Tensor, chunk_owners: Tensor, query_numbers: Tensor, margin: float
) -> Answers:
    """Let ``scores (q, n)``, the teacher's or those of teacher and words, choose the chunk that answers each query.

    It is one of the query's document. No negatives are: chunks of the same document that score within ``margin`` of the
    chosen one, chunks of others that score above it, and all chunks of another document that has the same query.
    """
    own = query_owners[:, None] == chunk_owners[None, :]  # (q, n)
    best, positives = scores.masked_fill(~own, -2.0).max(dim=1)
    excluded = scores > best[:, None] - margin * own
    same_query = (query_numbers[:, None] == query_numbers[None, :]).to(scores.dtype)  # (q, q)
    about = (same_query @ own.to(scores.dtype)) > 0  # (q, n): a document that this question is asked of
    return Answers(positives, excluded | (about & ~own))
