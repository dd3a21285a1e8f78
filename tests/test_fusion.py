"""Fusing dense and sparse candidates: by a model's weights, or by ranks."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import CheckpointError, InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER
from services.search.fusion import FUSION_FILE, FusionWeights, Half, features, fuse

CONSTANT = FusionWeights(intercept=math.log(0.1), best_sparse=0, dense_gap=0)
BY_QUERY = FusionWeights(intercept=-2.1, best_sparse=-0.5, dense_gap=-2.5)
DENSE = Half({"a": 0.9, "b": 0.7, "c": 0.5})
SPARSE = Half({"b": 8.0, "d": 6.0, "e": 2.0})


def half(scores: list[float]) -> Half[int]:
    return Half(dict(enumerate(sorted(scores, reverse=True))))


cosines = st.lists(st.floats(-1, 1), min_size=1, max_size=15).map(half)
bm25 = st.lists(st.floats(0.001, 200), max_size=15).map(half)


def test_scores_are_cosines_and_weighed_bm25() -> None:
    assert fuse(DENSE, SPARSE, CONSTANT)["b"] == pytest.approx(0.7 + 0.1 * 8)


def test_what_one_half_did_not_find_scores_there_like_the_last_that_it_found() -> None:
    scores = fuse(DENSE, SPARSE, CONSTANT)
    assert scores.keys() == set("abcde")
    assert scores["a"] == pytest.approx(0.9 + 0.1 * 2)
    assert scores["d"] == pytest.approx(0.5 + 0.1 * 6)


def test_a_chunk_without_any_word_of_the_query_gets_nothing_for_words() -> None:
    scores = fuse(DENSE, Half(SPARSE.scores, complete=True), CONSTANT)
    assert scores["a"] == pytest.approx(0.9)
    assert scores["e"] == pytest.approx(0.5 + 0.1 * 2)


def test_a_half_that_found_nothing_leaves_the_other_as_it_is() -> None:
    nothing: Half[str] = Half({}, complete=True)
    assert fuse(DENSE, nothing, BY_QUERY) == DENSE.scores
    for weights in (BY_QUERY, None):
        assert fuse(nothing, nothing, weights) == {}
        for one, order in ((fuse(DENSE, nothing, weights), "abc"), (fuse(nothing, SPARSE, weights), "bde")):
            assert "".join(sorted(one, key=lambda key: -one[key])) == order


def test_a_point_counts_less_among_many_and_where_an_embedding_stands_out() -> None:
    plain = BY_QUERY.weight(features(DENSE, SPARSE))
    assert plain == pytest.approx(math.exp(-2.1 - 0.5 * math.log(8) - 2.5 * 0.4))
    assert BY_QUERY.weight(features(DENSE, Half({"b": 30.0}))) < plain
    assert BY_QUERY.weight(features(Half({"a": 0.9, "b": 0.1}), SPARSE)) < plain


def test_the_embedding_of_a_query_says_how_much_words_count() -> None:
    weights = BY_QUERY.model_copy(update={"query": (2.0, -1.0)})
    found = features(DENSE, SPARSE)
    assert weights.weight(found, [1.0, 0.0]) == pytest.approx(math.exp(2) * BY_QUERY.weight(found))
    of_code, of_names = (fuse(DENSE, SPARSE, weights, query) for query in ([0.0, 1.0], [1.0, 0.0]))
    assert of_code["b"] == pytest.approx(0.7 + 8 * weights.weight(found, [0.0, 1.0]))
    assert of_names["d"] > of_code["d"]
    with pytest.raises(CheckpointError, match=r"query has 2 numbers, and embeddings of this model 3; fit it anew"):
        fuse(DENSE, SPARSE, weights, [1.0, 0.0, 0.0])


def test_the_gap_of_cosines_ends_at_the_tenth_and_depth_changes_nothing() -> None:
    deep = Half({key: 1 - key / 100 for key in range(400)})
    few = Half({key: 1 - key / 100 for key in range(100)})
    words = Half({0: 5.0})
    assert features(deep, words) == features(few, words)
    assert features(deep, words).dense_gap == pytest.approx(0.09)


def test_the_first_hits_do_not_depend_on_how_many_are_asked_for() -> None:
    def ranked(count: int) -> list[int]:
        dense = Half({key: 1 - key / 500 for key in range(count)})
        sparse = Half({300 + rank: 20 - rank / 50 for rank in range(count)})
        scores = fuse(dense, sparse, BY_QUERY)
        return sorted(scores, key=scores.__getitem__, reverse=True)[:100]

    assert ranked(400) == ranked(100)


def test_a_higher_score_in_one_half_raises_that_candidate_alone() -> None:
    before = fuse(DENSE, SPARSE, BY_QUERY)
    after = fuse(DENSE, Half(SPARSE.scores | {"d": 7.0}), BY_QUERY)
    assert after["d"] > before["d"]
    assert {**after, "d": 0.0} == {**before, "d": 0.0}


@given(cosines, bm25)
def test_every_candidate_gets_a_finite_score_and_better_in_both_is_better(dense: Half[int], sparse: Half[int]) -> None:
    extreme = FusionWeights(intercept=30, best_sparse=10, dense_gap=100)
    for weights in (BY_QUERY, extreme, None):
        scores = fuse(dense, sparse, weights)
        assert scores.keys() == dense.scores.keys() | sparse.scores.keys()
        assert all(map(math.isfinite, scores.values()))
        # Both halves number their candidates from the best on, so a lower number is at least as good in both.
        if weights is not None:
            assert all(scores[low] >= scores[low + 1] - 1e-9 * abs(scores[low]) for low in range(len(scores) - 1))


def test_without_weights_reciprocal_ranks_are_summed() -> None:
    scores = fuse(DENSE, SPARSE, None)
    assert scores == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 63, "d": 1 / 62, "e": 1 / 63})


def test_weights_are_kept_in_the_models_folder(tmp_path: Path) -> None:
    assert FusionWeights.load(tmp_path) is None
    BY_QUERY.save(tmp_path / FUSION_FILE)
    assert FusionWeights.load(tmp_path) == BY_QUERY
    with pytest.raises(InvalidInput, match="cannot be written"):
        BY_QUERY.save(tmp_path / "none" / FUSION_FILE)


def test_the_model_that_ships_brings_weights() -> None:
    weights = FusionWeights.load(DEFAULT_MODEL_FOLDER)
    assert weights is not None
    assert len(weights.query) == 384
    average = np.zeros(384)
    assert 0.005 < weights.weight(features(Half({0: 0.6, 1: 0.5}), Half({0: 20.0})), average) < 0.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"intercept": None}, "intercept is None"),
        ({"intercept": "high"}, "intercept is 'high'"),
        ({"intercept": 1e6}, r"intercept is 1000000.0 \(Input should be less than or equal to 30"),
        ({"dense_gap": math.nan}, "dense_gap is nan"),
        ({"query": [0.5, "high"]}, r"query\.1 is 'high'"),
        ({"weight": 1}, "weight is 1"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_its_key(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    (tmp_path / FUSION_FILE).write_text(json.dumps(BY_QUERY.model_dump() | change))
    with pytest.raises(CheckpointError, match=rf"fusion\.json: {says}.*fit-fusion"):
        FusionWeights.load(tmp_path)


def test_a_file_without_a_key_or_without_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / FUSION_FILE).write_text('{"intercept": 0, "dense_gap": 0}')
    with pytest.raises(CheckpointError, match="best_sparse is missing"):
        FusionWeights.load(tmp_path)
    (tmp_path / FUSION_FILE).write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        FusionWeights.load(tmp_path)
