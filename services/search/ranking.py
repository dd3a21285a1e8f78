"""Candidates in their order, best first, and what it was made of. Knows no index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from ingest.index.interface import ChunkKey, DocumentRecord, StoredChunk
from services.search.candidates import Found
from services.search.fusion import RANK_CONSTANT, FusionWeights, Half, ReciprocalRanks, fuse
from services.search.requests import FusionChoice, FusionMethod
from services.search.results import Hit, SearchMode


@dataclass(frozen=True, slots=True)
class Ranking:
    """Chunks, best first, and all that is known of them."""

    order: Sequence[ChunkKey]
    scores: Mapping[ChunkKey, float]
    dense: Half[ChunkKey]
    sparse: Half[ChunkKey]
    cosines: Mapping[ChunkKey, float]  # those of the dense half, and others that were asked for
    rule: FusionWeights | ReciprocalRanks | None  # None: one half alone
    embedding: NDArray[np.float32]  # (d,) the query's; empty where there is none

    def hit(self, chunk: StoredChunk, record: DocumentRecord, rank: int) -> Hit:
        """Make the hit of a chunk."""
        key = chunk.chunk_key
        return Hit(rank, self.scores[key], chunk, record, self.cosines.get(key), self.sparse.scores.get(key))

    def of_similarity(self, cosines: Mapping[ChunkKey, float], least: float) -> Ranking:
        """Keep the chunks of at least this cosine; ``cosines`` are of those that the dense half has not found."""
        known = {**self.cosines, **cosines}
        kept = [key for key in self.order if known.get(key, -2.0) >= least]
        return replace(self, order=kept, cosines=known)


def fusion_rule(choice: FusionChoice | None, weights: FusionWeights | None) -> FusionWeights | ReciprocalRanks:
    """Decide how both halves become one; :class:`InvalidInput` for what does not go with the model or the method."""
    if choice is None:
        return weights or ReciprocalRanks()
    method = choice.method or (FusionMethod.FITTED if weights else FusionMethod.RECIPROCAL_RANK)
    given = {"dense_weight": choice.dense_weight, "sparse_weight": choice.sparse_weight}
    given["rank_constant"] = choice.rank_constant
    if method is FusionMethod.FITTED:
        if weights is None:
            message = "fusion.method is fitted, and the model has no fitted weights; choose reciprocal rank."
            raise InvalidInput("fusion.method", message)
        for name, value in given.items():
            if value is not None:
                message = f"fusion.{name} is {value}, which goes with method reciprocal rank alone; choose it, too."
                raise InvalidInput(f"fusion.{name}", message)
        return weights
    return ReciprocalRanks(
        1.0 if choice.dense_weight is None else choice.dense_weight,
        1.0 if choice.sparse_weight is None else choice.sparse_weight,
        RANK_CONSTANT if choice.rank_constant is None else choice.rank_constant,
    )


def rank(
    found: Found, mode: SearchMode, rule: FusionWeights | ReciprocalRanks, embedding: NDArray[np.float32]
) -> Ranking:
    """Score the candidates as the mode says, and sort them."""
    candidates = found.candidates
    dense = {hit.chunk: hit.score for hit in candidates.dense}
    sparse = {hit.chunk: hit.score for hit in candidates.sparse}
    halves = Half(dense), Half(sparse, complete=candidates.sparse_complete)
    scores: Mapping[ChunkKey, float] = dense or sparse
    if mode is SearchMode.HYBRID:
        scores = fuse(*halves, rule, embedding)
    # Equal scores have an order too, or the same search would answer differently each time. Far down a hybrid
    # ranking many are equal: there the cosines decide, then the words.
    order = sorted(scores, key=lambda key: (-scores[key], -dense.get(key, -1.0), -sparse.get(key, 0.0), key))
    return Ranking(
        order,
        scores,
        *halves,
        cosines=dense,
        rule=rule if mode is SearchMode.HYBRID else None,
        embedding=embedding,
    )
