"""Reciprocal rank fusion."""

import pytest

from services.fusion import fuse


def test_scores_are_weighted_reciprocal_ranks() -> None:
    scores = fuse([(1.0, ["a", "b"]), (0.5, ["b", "c"])])
    assert scores == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 0.5 / 61, "c": 0.5 / 62})


def test_what_both_rankings_hold_beats_what_leads_one() -> None:
    scores = fuse([(1.0, ["a", "b", "c"]), (1.0, ["d", "b", "e"])])
    assert max(scores, key=lambda key: scores[key]) == "b"


def test_nothing_in_gives_nothing_out() -> None:
    assert fuse([(1.0, []), (1.0, [])]) == {}
