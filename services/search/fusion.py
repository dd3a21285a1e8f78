"""Both halves of a search into one ranking: dense candidates and sparse ones. Knows keys and scores, no search.

A model's own :class:`FusionWeights` say how much a BM25 point counts beside its cosines, query by query, so that scores
can be added up. Where a model has none, ranks are: cosines of different models have different scales. A caller may ask
for ranks, too.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Generic, NamedTuple, Self, TypeVar

import numpy as np
import pydantic
from numpy.typing import ArrayLike

from encoder.errors import CheckpointError, InvalidInput
from encoder.hub import local_folder
from encoder.layouts.options import read_json

FUSION_FILE = "fusion.json"
# Cormack, Clarke, Büttcher 2009: large enough that the first ranks of one list do not decide alone.
RANK_CONSTANT = 60
# The rank whose cosine the first one's is compared with.
GAP_RANK = 10
# Candidates of each half whose scores count; what comes after them scores like the last of them. Weights are fitted so,
# and a search that asks for more hits ranks the first ones as one that asks for few.
DEPTH = 100
_BM25_MIN = 0.1  # the logarithm of less would say nothing
_EXPONENT_MAX = 50.0  # numbers from a file stay finite

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Half(Generic[_Key]):
    """What one half of a search found."""

    scores: dict[_Key, float]  # best first
    complete: bool = False  # nothing else in the index would score above 0

    @property
    def floor(self) -> float:
        """What chunks score that are not among the first :data:`DEPTH`: the most that they can."""
        if len(self.scores) >= DEPTH:
            return next(islice(self.scores.values(), DEPTH - 1, None))
        return 0.0 if self.complete or not self.scores else next(reversed(self.scores.values()))


class Features(NamedTuple):
    """What of a query its weight depends on."""

    best_sparse: float  # ln of the best BM25 score
    dense_gap: float  # from the best cosine to the tenth


class FusionWeights(pydantic.BaseModel):
    """How a BM25 point counts beside a model's cosines: ``fusion.json`` in the model's folder.

    ``ln(weight) = intercept + best_sparse * ln(best BM25) + dense_gap * (best cosine - tenth) + query . embedding``. As
    fitted, a point counts less where the best passage has many of them (long queries, rare words), where embeddings
    stand out, and where a query's embedding is near those of questions that words answer badly, as of code.
    ``mamba-search fit-fusion`` fits the numbers.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    intercept: float = pydantic.Field(ge=-30, le=30)
    best_sparse: float = pydantic.Field(ge=-10, le=10)
    dense_gap: float = pydantic.Field(ge=-100, le=100)
    query: tuple[Annotated[float, pydantic.Field(ge=-100, le=100)], ...] = ()  # one a number of embeddings, or none

    @classmethod
    def load(cls, source: Path) -> Self | None:
        """Read ``fusion.json`` of a model (a folder of any layout, or a hub id); None where it has none.

        :class:`CheckpointError` names the key that is missing, unknown or out of range.
        """
        path = local_folder(source, weights=False) / FUSION_FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate(read_json(path))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            says = "missing" if first["type"] == "missing" else f"{repr(first['input'])[:100]} ({first['msg']})"
            raise CheckpointError(
                f"{path}: {key} is {says}; fit it anew with `mamba-search fit-fusion`, or remove the file, and ranks "
                "are fused."
            ) from None

    def save(self, path: Path) -> None:
        """Write the file; :class:`InvalidInput` where it cannot be written."""
        try:
            path.write_text(self.model_dump_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidInput("out", f"{path} cannot be written ({error.strerror}).") from error

    def weight(self, found: Features, query: ArrayLike = ()) -> float:
        """Say what a BM25 point counts in cosine, above 0, for a query of this embedding ``(d,)``.

        :class:`CheckpointError` where the weights were fitted to embeddings of another length.
        """
        exponent = self.intercept + self.best_sparse * found.best_sparse + self.dense_gap * found.dense_gap
        if self.query:
            embedding = np.asarray(query, dtype=np.float64)
            if embedding.shape != (len(self.query),):
                raise CheckpointError(
                    f"{FUSION_FILE}: query has {len(self.query)} numbers, and embeddings of this model "
                    f"{embedding.size}; fit it anew with `mamba-search fit-fusion`, or remove the file, and ranks are "
                    "fused."
                )
            exponent += float(np.dot(self.query, embedding))
        return math.exp(min(max(exponent, -_EXPONENT_MAX), _EXPONENT_MAX))


@dataclass(frozen=True, slots=True)
class ReciprocalRanks:
    """Fusion by ranks alone: ``weight / (rank_constant + rank)`` of both halves, summed."""

    dense_weight: float = 1.0
    sparse_weight: float = 1.0
    rank_constant: int = RANK_CONSTANT

    def parts(self, dense_rank: int | None, sparse_rank: int | None) -> tuple[float, float]:
        """Say what each half gives to the score of a chunk at these ranks, from 1; nothing where it has none."""
        dense = self.dense_weight / (self.rank_constant + dense_rank) if dense_rank else 0.0
        sparse = self.sparse_weight / (self.rank_constant + sparse_rank) if sparse_rank else 0.0
        return dense, sparse


def fuse(
    dense: Half[_Key], sparse: Half[_Key], rule: FusionWeights | ReciprocalRanks | None, query: ArrayLike = ()
) -> dict[_Key, float]:
    """Score all candidates, unsorted: ``cosine + weight * BM25``; without a rule, ``1 / (60 + rank)`` summed.

    What only one half found has the other's ``floor``; among ranks, nothing. ``query`` is its embedding ``(d,)``.
    """
    if isinstance(rule, FusionWeights):
        weight = rule.weight(features(dense, sparse), query)
        return {key: cosine + weight * bm25 for key, (cosine, bm25) in align(dense, sparse).items()}
    ranks = rule or ReciprocalRanks()
    scores = {key: ranks.parts(rank, None)[0] for rank, key in enumerate(dense.scores, start=1)}
    for rank, key in enumerate(sparse.scores, start=1):
        scores[key] = scores.get(key, 0.0) + ranks.parts(None, rank)[1]
    return scores


def align(dense: Half[_Key], sparse: Half[_Key]) -> dict[_Key, tuple[float, float]]:
    """Give every candidate both scores, none below that half's ``floor``."""
    dense_floor, sparse_floor = dense.floor, sparse.floor
    return {
        key: (max(dense.scores.get(key, dense_floor), dense_floor), max(sparse.scores.get(key, 0.0), sparse_floor))
        for key in dict.fromkeys([*dense.scores, *sparse.scores])
    }


def features(dense: Half[_Key], sparse: Half[_Key]) -> Features:
    """Read a query's features from what both halves found for it."""
    cosines = list(islice(dense.scores.values(), GAP_RANK))
    best = next(iter(sparse.scores.values()), 0.0)
    return Features(math.log(max(best, _BM25_MIN)), cosines[0] - cosines[-1] if cosines else 0.0)
