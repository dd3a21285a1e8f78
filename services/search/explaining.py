"""How a hit's score came to be, in numbers and in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ingest.index.interface import ChunkKey
from services.search.fusion import FusionWeights, Half, ReciprocalRanks, features
from services.search.ranking import Ranking
from services.search.requests import FusionMethod
from services.search.results import Explanation


class Diverse(NamedTuple):
    """Why a hit stands where it does among others that it should differ from."""

    similarity_before: float | None  # the greatest cosine to a hit before it; None for the first
    score: float


class Explainer:
    """Explains hits of one ranking; what is the same for all of them is worked out once."""

    def __init__(self, ranking: Ranking, diverse: Mapping[ChunkKey, Diverse]) -> None:
        self._ranking = ranking
        self._diverse = diverse
        self._dense_ranks = _ranks(ranking.dense)
        self._sparse_ranks = _ranks(ranking.sparse)
        rule = ranking.rule
        self._weight = 1.0
        if isinstance(rule, FusionWeights):
            self._weight = rule.weight(features(ranking.dense, ranking.sparse), ranking.embedding)

    def explain(self, key: ChunkKey) -> Explanation:
        """Explain one hit."""
        dense_rank, sparse_rank = self._dense_ranks.get(key), self._sparse_ranks.get(key)
        cosine, bm25 = self._ranking.dense.scores.get(key, 0.0), self._ranking.sparse.scores.get(key, 0.0)
        score = self._ranking.scores[key]
        match self._ranking.rule:
            case FusionWeights():
                dense, sparse = self._ranking.dense.floor, self._ranking.sparse.floor
                cosine, bm25 = max(cosine if dense_rank else dense, dense), max(bm25, sparse)
                method, weights = FusionMethod.FITTED.value, (1.0, self._weight)
                parts = cosine, self._weight * bm25
                summary = f"{score:.4f} = cosine {cosine:.4f} + {self._weight:.4f} x BM25 {bm25:.3f}"
            case ReciprocalRanks() as rule:
                method, weights = FusionMethod.RECIPROCAL_RANK.value, (rule.dense_weight, rule.sparse_weight)
                parts = rule.parts(dense_rank, sparse_rank)
                said = [
                    f"{weight:g} / ({rule.rank_constant} + {place}, its {name} rank)"
                    for name, weight, place in (
                        ("dense", rule.dense_weight, dense_rank),
                        ("sparse", rule.sparse_weight, sparse_rank),
                    )
                    if place
                ]
                summary = f"{score:.5f} = {' + '.join(said)}"
            case None:
                method, weights = "", (float(bool(dense_rank)), float(bool(sparse_rank)))
                parts = cosine, bm25
                summary = f"{score:.4f} is the cosine" if dense_rank else f"{score:.4f} is the BM25 score"
        diverse = self._diverse.get(key)
        if diverse:
            before = diverse.similarity_before
            likeness = "the first" if before is None else f"cosine {before:.4f} to one before"
            summary += f"; placed by {diverse.score:.4f}, {likeness}"
        return Explanation(
            dense_rank=dense_rank,
            sparse_rank=sparse_rank,
            fusion=method,
            dense_value=cosine,
            sparse_value=bm25,
            dense_weight=weights[0],
            sparse_weight=weights[1],
            dense_part=parts[0],
            sparse_part=parts[1],
            summary=summary,
            similarity_before=diverse.similarity_before if diverse else None,
            diverse_score=diverse.score if diverse else None,
        )


def _ranks(half: Half[ChunkKey]) -> dict[ChunkKey, int]:
    return {key: place for place, key in enumerate(half.scores, start=1)}
