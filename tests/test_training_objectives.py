"""What training makes small: the losses, with and without negatives left out, at several widths."""

import pytest
import torch

from encoder.model import truncate
from encoder.training.objectives import (
    cosine_loss,
    info_nce,
    no_negatives,
    over_widths,
    ranking_loss,
    relational_loss,
)

EYE = torch.eye(4)
TURNED = EYE.roll(1, 0)
DIAGONAL = torch.arange(4)


def test_losses_know_right_from_wrong() -> None:
    assert cosine_loss(EYE, EYE).item() == pytest.approx(0)
    assert cosine_loss(EYE, -EYE).item() == pytest.approx(2)
    assert relational_loss(EYE, EYE, 0.05).item() == pytest.approx(0, abs=1e-6)
    assert relational_loss(TURNED, EYE, 0.05).item() > 1
    assert info_nce(EYE, DIAGONAL, 0.05).item() == pytest.approx(0, abs=1e-6)
    assert info_nce(TURNED, DIAGONAL, 0.05).item() > 10


def test_info_nce_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    scores, positives = torch.randn(3, 7), torch.tensor([0, 2, 4])
    rows = torch.exp(scores / 0.1)
    wanted = -torch.log(rows[torch.arange(3), positives] / rows.sum(1)).mean()
    assert info_nce(scores, positives, 0.1).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_what_is_excluded_is_no_negative() -> None:
    everything = torch.ones(4, 4, dtype=torch.bool)
    assert info_nce(TURNED, DIAGONAL, 0.05, everything).item() == pytest.approx(0, abs=1e-6)


def test_same_texts_and_what_the_teacher_prefers_are_no_negatives() -> None:
    # Three queries with a hard negative each; the last asks what the first does, the second has the first's positive.
    query_numbers = torch.tensor([7, 8, 7])
    passage_numbers = torch.tensor([70, 90, 70, 91, 72, 93])
    positives = torch.tensor([0, 2, 4])
    scores = torch.full((3, 6), 0.2)
    scores[torch.arange(3), positives] = 0.5
    scores[1, 5] = 0.65  # above the positive by more than the margin
    scores[1, 1] = 0.55
    found = no_negatives(query_numbers, passage_numbers, positives, scores, 0.1)
    wanted = torch.tensor(
        [
            [True, False, True, False, True, False],
            [True, False, True, False, False, True],
            [True, False, False, False, True, False],
        ]
    )
    assert torch.equal(found, wanted)


def test_ranking_loss_is_smallest_where_the_student_ranks_alike() -> None:
    target = torch.tensor([[0.7, 0.2, 0.1, 0.0]])
    alike = 0.05 * torch.log(torch.tensor([[0.7, 0.2, 0.1, 1e6]]))  # the last is no candidate, whatever its score
    assert ranking_loss(alike, target, 0.05).item() == pytest.approx(0, abs=1e-6)
    assert ranking_loss(alike.flip(1), target, 0.05).item() > 1


def test_shortened_embeddings_have_length_one_and_count_in_the_loss() -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(5, 16), dim=-1)
    short = truncate(embeddings, 4)
    assert short.shape == (5, 4)
    torch.testing.assert_close(short.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(short, torch.nn.functional.normalize(embeddings[:, :4], dim=-1))

    def width(texts: torch.Tensor) -> torch.Tensor:
        return torch.tensor(float(texts.shape[1]))

    assert over_widths((), [embeddings], width).item() == 16
    assert over_widths((8, 4), [embeddings], width).item() == pytest.approx((16 + 8 + 4) / 3)
