"""What mining does, as the table ``[mining]`` of a training configuration says it."""

from __future__ import annotations

import pydantic

from encoder.training.rankings import Method


class MiningConfig(pydantic.BaseModel):
    """How negatives and candidates are mined."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    candidates: int = pydantic.Field(default=32, ge=1)  # that each ranker finds for a query
    negatives: int = pydantic.Field(default=16, ge=1)  # kept of each query, the best by fused score
    bm25: bool = True
    # A candidate that the judge scores above this share of the worst positive's score, or less than ``margin`` below
    # it, may answer the query, too, and is no negative.
    relative_max: float = pydantic.Field(default=0.95, gt=0, le=1)
    margin: float = pydantic.Field(default=0.0, ge=0)
    same_document: bool = False  # whether other parts of a positive's document may be negatives
    fusion: Method = "zscore"
    bm25_weight: float = pydantic.Field(default=1.0, gt=0)  # in the fused scores; the judge's is 1
    tokens_max: int = pydantic.Field(default=512, ge=16)  # that a model reads of a query or passage
