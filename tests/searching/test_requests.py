"""What a search may be asked: every limit, by name."""

import math

import numpy as np
import pytest

from encoder.errors import InvalidInput
from ingest.filters import Equals
from services.search.fusion import RANK_CONSTANT, FusionWeights, ReciprocalRanks
from services.search.ranking import fusion_rule
from services.search.requests import (
    FusionChoice,
    FusionMethod,
    RetrieveRequest,
    SearchRequest,
    SimilarRequest,
    check_embedding,
    check_retrieve,
    check_search,
    check_similar,
)
from services.search.results import SearchMode
from tests.searching.corpora import DIMENSION, QUERY

DENSE, SPARSE, HYBRID = SearchMode.DENSE, SearchMode.SPARSE, SearchMode.HYBRID
WEIGHTS = FusionWeights(intercept=0, best_sparse=0, dense_gap=0)


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (SearchRequest(), "query", "query is empty or only white space; say what to look for"),
        (SearchRequest("", HYBRID, embedding=QUERY), "query", "mode hybrid needs words"),
        (SearchRequest(" ", DENSE, embedding=QUERY), "query", "only white space"),
        (SearchRequest("a\ud800"), "query", "not whole Unicode"),
        (SearchRequest("a", SPARSE, embedding=QUERY), "embedding", "mode sparse has no use for it"),
        (SearchRequest("a", DENSE, fusion=FusionChoice()), "fusion", "mode dense fuses nothing"),
        (SearchRequest("a", fusion=FusionChoice(dense_weight=-1)), "fusion.dense_weight", "is -1; 0 to 100.0"),
        (SearchRequest("a", fusion=FusionChoice(sparse_weight=math.nan)), "fusion.sparse_weight", "is nan"),
        (SearchRequest("a", fusion=FusionChoice(None, 0, 0)), "fusion", "both 0"),
        (SearchRequest("a", fusion=FusionChoice(rank_constant=1001)), "fusion.rank_constant", "1 to 1000"),
        (SearchRequest("a", group_chunks=11), "group_by_document.chunks_max", "is 11; 1 to 10"),
        (SearchRequest("a", group_chunks=1, mmr_lambda=0.5), "diversity", "choose one of them"),
        (SearchRequest("a", mmr_lambda=1.5), "diversity.mmr_lambda", "is 1.5; 0 to 1"),
        (SearchRequest("a", SPARSE, min_score=0.1), "min_score", "mode sparse has none"),
        (SearchRequest("a", min_score=2), "min_score", "is 2; -1 to 1"),
        (SearchRequest("a", min_score=math.nan), "min_score", "is nan"),
        (SearchRequest("a", filter=Equals("colour", "red")), "filter.colour", "names a field 'colour'"),
    ],
)
def test_what_is_refused(request_: SearchRequest, field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refusal:
        check_search(request_)
    assert refusal.value.field == field


def test_the_mode_follows_from_what_is_given() -> None:
    assert SearchRequest("a").scored_by is HYBRID
    assert SearchRequest("a", embedding=QUERY).scored_by is HYBRID
    assert SearchRequest(embedding=QUERY).scored_by is DENSE
    assert SearchRequest("a", SPARSE).scored_by is SPARSE


@pytest.mark.parametrize(
    ("embedding", "field", "words"),
    [
        (QUERY[:5], "embedding", f"has 5 numbers; the index has embeddings of {DIMENSION}"),
        (np.array([1, 0, np.nan, *[0] * 5]), r"embedding[2]", "is nan; give finite numbers"),
        (np.array([1, -np.inf, *[0] * 6]), r"embedding[1]", "is -inf"),
        (np.zeros(DIMENSION), "embedding", "0 in all numbers"),
    ],
)
def test_an_embedding_of_another_kind(embedding: np.ndarray, field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refusal:
        check_embedding(embedding.astype(np.float32), DIMENSION)
    assert refusal.value.field == field


@pytest.mark.parametrize("scale", [1e-30, 1.0, 3e38])
def test_an_embedding_gets_length_1(scale: float) -> None:
    made = check_embedding(np.array([0.6, 0.8, *[0] * 6], dtype=np.float32) * np.float32(scale), DIMENSION)
    assert made.tolist() == pytest.approx([0.6, 0.8, *[0] * 6])
    assert made.dtype == np.float32


def test_limits_of_retrieval_and_of_similar_documents() -> None:
    for request, field in (
        (RetrieveRequest(SearchRequest("a"), 131_073), "token_budget"),
        (RetrieveRequest(SearchRequest("a"), neighbours=6), "neighbours"),
    ):
        with pytest.raises(InvalidInput, match=f"{field} is ") as refusal:
            check_retrieve(request)
        assert refusal.value.field == field
    for similar, field in (
        (SimilarRequest("d", 101), "top_k"),
        (SimilarRequest("d", min_score=-2), "min_score"),
        (SimilarRequest("d", group_chunks=11), "chunks_max"),
        (SimilarRequest("d", filter=Equals("x", 1)), "filter.x"),
    ):
        with pytest.raises(InvalidInput) as refusal:
            check_similar(similar)
        assert refusal.value.field == field


def test_fusion_is_the_models_unless_said() -> None:
    assert fusion_rule(None, WEIGHTS) is WEIGHTS
    assert fusion_rule(None, None) == ReciprocalRanks()
    assert fusion_rule(FusionChoice(), WEIGHTS) is WEIGHTS
    assert fusion_rule(FusionChoice(sparse_weight=2), None) == ReciprocalRanks(1, 2, RANK_CONSTANT)
    chosen = FusionChoice(FusionMethod.RECIPROCAL_RANK, 0, 0.5, 10)
    assert fusion_rule(chosen, WEIGHTS) == ReciprocalRanks(0, 0.5, 10)


@pytest.mark.parametrize(
    ("choice", "weights", "field"),
    [
        (FusionChoice(FusionMethod.FITTED), None, "fusion.method"),
        (FusionChoice(dense_weight=1), WEIGHTS, "fusion.dense_weight"),
        (FusionChoice(FusionMethod.FITTED, sparse_weight=0), WEIGHTS, "fusion.sparse_weight"),
        (FusionChoice(rank_constant=10), WEIGHTS, "fusion.rank_constant"),
    ],
)
def test_fusion_that_does_not_go_together(choice: FusionChoice, weights: FusionWeights | None, field: str) -> None:
    with pytest.raises(InvalidInput, match="reciprocal rank") as refusal:
        fusion_rule(choice, weights)
    assert refusal.value.field == field
