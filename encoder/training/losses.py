"""What training makes small. All embeddings are ``(b, d)`` with rows of length 1; all losses are means over rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of each student row with its teacher row."""
    return 1 - (student * teacher).sum(-1).mean()


def relational_loss(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], temperature: float, *, skip_diagonal: bool
) -> Tensor:
    """Kullback-Leibler divergence of the student's similarity distribution over a batch from the teacher's.

    Each row of the first side is compared with all rows of the second (the same texts, or their positives); with
    ``skip_diagonal`` a row's similarity with itself, always 1, is left out.
    """
    mine = student[0] @ student[1].T / temperature
    its = teacher[0] @ teacher[1].T / temperature
    if skip_diagonal:
        self_pairs = torch.eye(len(mine), dtype=torch.bool, device=mine.device)
        mine, its = mine.masked_fill(self_pairs, -1e4), its.masked_fill(self_pairs, -1e4)
    return F.kl_div(F.log_softmax(mine, -1), F.log_softmax(its, -1), log_target=True, reduction="batchmean")


def info_nce(queries: Tensor, positives: Tensor, temperature: float, same: Tensor | None = None) -> Tensor:
    """InfoNCE with in-batch negatives (Mamba Retriever, arXiv 2408.08066, equation 4), both ways.

    Row i of ``queries`` belongs to row i of ``positives``. ``same (b, b)`` marks pairs that are not negatives of each
    other (the same query or positive twice, or a suspected false negative); its diagonal is ignored.
    """
    scores = queries @ positives.T / temperature
    if same is not None:
        diagonal = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(same & ~diagonal, -1e4)
    labels = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2
