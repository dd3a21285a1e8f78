"""Documents in one pass: an end-of-sequence token after each chunk, and losses on every chunk's embedding.

A chunk's embedding shall say what the teacher says of the chunk alone, and shall be what the document's queries find:
the teacher chooses which chunk of its document answers a query, and the other chunks, of this and of all other
documents, are the negatives. Long documents are read in pieces with the state carried on and detached, so that memory
does not grow with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from encoder.training.config import DocumentsTask
from encoder.training.gradient_cache import Piece, Reading, read_rows
from encoder.training.objectives import Losses, cosine_loss, info_nce, over_widths, relational_loss
from encoder.training.rows import TextRows
from encoder.training.tasks import Step, Surroundings
from encoder.training.teacher import TeacherInput


class DocumentRows(NamedTuple):
    """Documents as rows, in pieces; ``n`` counts the chunks of all, in order of piece, row and place."""

    pieces: list[tuple[Tensor, Tensor]]  # tokens (b, l), and row and position of each chunk's last token (n, 2)
    owners: Tensor  # (n,) row of each chunk's document
    chunks: TeacherInput | None  # each alone
    queries: TextRows | None
    query_teacher: TeacherInput | None
    query_owners: Tensor | None  # (q,) row of the document that each is about
    query_numbers: Tensor | None  # (q,) equal for equal texts


class Answers(NamedTuple):
    """Which chunk each query shall find; see :func:`choose_answers`."""

    positives: Tensor  # (q,) columns
    excluded: Tensor  # (q, n) chunks that are no negatives


def documents_step(batch: DocumentRows, task: DocumentsTask, around: Surroundings) -> Step:
    """Each chunk's embedding where the teacher places the chunk alone, and where its queries find it."""
    gather = around.ranks.gather
    target = gather_rows(around, batch.chunks)
    readings = [Reading("passage", tuple(Piece(*piece) for piece in batch.pieces), carried=len(batch.pieces) > 1)]
    asked: Tensor | None = None
    answers: Answers | None = None
    if batch.queries is not None and batch.query_owners is not None and batch.query_numbers is not None:
        readings.append(read_rows("query", batch.queries.tokens, batch.queries.ends, around.slice_tokens))
        asked = gather_rows(around, batch.query_teacher)
        # Rows are numbered in each process; together they need numbers of their own.
        shift = around.ranks.rank * len(batch.pieces[0][0])
        if asked is not None and target is not None:
            answers = choose_answers(
                asked @ target.T,
                gather(batch.query_owners + shift, equal=False),
                gather(batch.owners + shift, equal=False),
                gather(batch.query_numbers, equal=False),
                task.false_negative_margin,
            )

    def contrast(chunks: Tensor, queries: Tensor) -> Tensor:
        assert answers is not None
        return info_nce(queries @ chunks.T, answers.positives, task.temperature, answers.excluded)

    def relate(chunks: Tensor, queries: Tensor) -> Tensor:
        assert asked is not None
        assert target is not None
        return relational_loss(queries @ chunks.T, asked @ target.T, task.temperature)

    def losses_of(embeddings: Sequence[Tensor]) -> Losses:
        joined = [gather(part, equal=False) for part in embeddings]
        losses: Losses = {}
        if task.cosine_weight and target is not None:
            losses["document_cosine"] = task.cosine_weight * cosine_loss(joined[0], target)
        if task.info_nce_weight and answers is not None:
            losses["document_info_nce"] = task.info_nce_weight * over_widths(task.matryoshka, joined, contrast)
        if task.relational_weight and asked is not None:
            losses["document_relational"] = task.relational_weight * over_widths(task.matryoshka, joined, relate)
        return losses

    return Step(tuple(readings), losses_of)


def gather_rows(around: Surroundings, texts: TeacherInput | None) -> Tensor | None:
    """Ask the teacher, and join the answers of all processes, which need not have as many texts."""
    if texts is None or around.teacher is None:
        return None
    return around.ranks.gather(around.teacher.embed(texts), equal=False)


def choose_answers(
    scores: Tensor, query_owners: Tensor, chunk_owners: Tensor, query_numbers: Tensor, margin: float
) -> Answers:
    """Let the teacher's ``scores (q, n)`` choose the chunk that answers each query, among those of its document.

    No negatives are: chunks of the same document that score within ``margin`` of the chosen one, chunks of others that
    score above it, and all chunks of another document that has the same query.
    """
    own = query_owners[:, None] == chunk_owners[None, :]  # (q, n)
    best, positives = scores.masked_fill(~own, -2.0).max(dim=1)
    excluded = scores > best[:, None] - margin * own
    same_query = (query_numbers[:, None] == query_numbers[None, :]).to(scores.dtype)  # (q, q)
    about = (same_query @ own.to(scores.dtype)) > 0  # (q, n): a document that this question is asked of
    return Answers(positives, excluded | (about & ~own))
