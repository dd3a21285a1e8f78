"""What training makes small. Embeddings are ``(n, d)`` with rows of length 1; losses are means over rows.

Letters:  q  queries      m  passages, those of all queries together      c  candidates of one query      d  width

Knows no models and no batches; with several processes, the embeddings of all of them come in together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from encoder.model import truncate

Losses = dict[str, Tensor]
_NEVER = -1e4  # stands for minus infinity, whose gradient would not be a number


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of each student row with its teacher row."""
    return 1 - (student * teacher).sum(-1).mean()


def relational_loss(student: Tensor, teacher: Tensor, temperature: float, excluded: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the student's distributions over a batch from the teacher's, row by row.

    ``student`` and ``teacher (q, m)`` are cosines of the same texts; where ``excluded (q, m)`` both leave a column out.
    The temperature is both's. Similarities of a batch as what to learn: Tian et al. 2020 (arXiv 1910.10699) and others.
    """
    logits, target = student / temperature, teacher / temperature
    if excluded is not None:
        logits, target = logits.masked_fill(excluded, _NEVER), target.masked_fill(excluded, _NEVER)
    return F.kl_div(F.log_softmax(logits, -1), F.log_softmax(target, -1), log_target=True, reduction="batchmean")


def info_nce(scores: Tensor, positives: Tensor, temperature: float, excluded: Tensor | None = None) -> Tensor:
    """InfoNCE (Mamba Retriever, arXiv 2408.08066, equation 4): the positive against all other passages of the batch.

    ``scores (q, m)`` are cosines, ``positives (q,)`` the column that answers each row. ``excluded (q, m)`` marks what
    is no negative: the same query's other passages, the same passage again, suspected false negatives. A positive is
    never excluded.
    """
    if excluded is not None:
        positive = torch.arange(scores.shape[1], device=scores.device) == positives[:, None]
        scores = scores.masked_fill(excluded & ~positive, _NEVER * temperature)
    return F.cross_entropy(scores / temperature, positives)


def ranking_loss(scores: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's ranking of candidates from a teacher's.

    ``scores (q, c)`` are the student's cosines, ``target (q, c)`` a distribution over the same candidates, 0 where a
    query has fewer of them. Temperature is the student's.
    """
    logits = (scores / temperature).masked_fill(target <= 0, _NEVER)
    return F.kl_div(F.log_softmax(logits, -1), target, reduction="batchmean")


def no_negatives(
    query_numbers: Tensor,
    passage_numbers: Tensor,
    positives: Tensor,
    teacher_scores: Tensor | None,
    margin: float | None,
) -> Tensor:
    """Mark ``(q, m)`` what must not count as a negative.

    Passages of the same query elsewhere in the batch, copies of a query's own positive, and what the teacher scores
    more than ``margin`` above the positive. ``query_numbers (q,)`` and ``passage_numbers (m,)`` name equal texts
    equally; ``positives (q,)`` are columns; ``teacher_scores (q, m)``. A query's own hard negatives stay negatives.
    """
    same_query = query_numbers[:, None] == query_numbers[None, :]  # (q, q)
    # Whose positive a column is: passages that answer the same question, asked twice, are not each other's negatives.
    excluded = torch.zeros(len(query_numbers), len(passage_numbers), dtype=torch.bool, device=query_numbers.device)
    excluded[:, positives] = same_query
    excluded |= passage_numbers[positives][:, None] == passage_numbers[None, :]
    if teacher_scores is not None and margin is not None:
        excluded |= teacher_scores > teacher_scores.gather(1, positives[:, None]) + margin
    return excluded


def over_widths(widths: Sequence[int], embeddings: Sequence[Tensor], loss: Callable[..., Tensor]) -> Tensor:
    """Give the mean of a loss of whole embeddings and of their first ``widths`` numbers.

    Matryoshka representations (Kusupati et al. 2022, arXiv 2205.13147), equation 1, all weights alike: the paper sums
    the widths' losses, and a mean keeps their scale.
    """
    total = loss(*embeddings)
    for width in widths:
        total = total + loss(*(truncate(each, width) for each in embeddings))
    return total / (1 + len(widths))
