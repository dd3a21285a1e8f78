"""One line of results: what was measured, how good it is, how sure that is. Written by ``mamba-search evaluate``."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from statistics import fmean

import pydantic

from encoder.errors import InvalidInput
from encoder.jsonl import read_lines


class EvaluationMode(StrEnum):
    """How documents are ranked: the three modes of search, and two baselines."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"
    BM25S = "bm25s"  # an independent BM25 over the same passages
    RRF = "rrf"  # the dense run and that one, fused by plain reciprocal rank


class Chunks(StrEnum):
    """How documents become embeddings."""

    ALONE = "alone"  # a vector for each chunk, encoded on its own
    ONE_PASS = "one-pass"  # noqa: S105 - a vector for each chunk, in one pass through the document
    DOCUMENT = "document"  # one vector


class Comparison(pydantic.BaseModel):
    """A metric's difference from the baseline's, on the same queries."""

    mean: float  # system - baseline
    low: float
    high: float
    p_bootstrap: float
    p_randomization: float
    significant: bool


class Result(pydantic.BaseModel):
    """The quality of one system in one mode on one set."""

    model_config = pydantic.ConfigDict(populate_by_name=True)

    system: str
    dataset: str
    length: int | None = None  # tokens that documents were lengthened to
    mode: EvaluationMode
    chunks: Chunks = Chunks.ALONE
    documents: int
    queries: int
    ndcg_at_10: float = pydantic.Field(alias="ndcg@10")
    mrr_at_10: float = pydantic.Field(alias="mrr@10")
    recall_at_10: float = pydantic.Field(alias="recall@10")
    recall_at_100: float = pydantic.Field(alias="recall@100")
    intervals: dict[str, tuple[float, float]] = {}  # 95 %, by metric
    baseline: str | None = None  # the run that was compared with
    differences: dict[str, Comparison] = {}  # from that run, by metric
    parameters: int | None = None  # of the model
    tokens: int | None = None  # that the encoder read to embed the documents
    tokens_per_s: float | None = None  # while it did
    seconds: float  # of this mode's searches; the first mode's also hold the building of the index

    @property
    def title(self) -> str:
        """Name the set for a reader."""
        return f"{self.dataset}, {self.length:,} tokens" if self.length else self.dataset

    @property
    def column(self) -> Column:
        """Whose figure it is, whatever the set."""
        # These two do not depend on how chunks are encoded, or on the model at all.
        chunks = "" if self.mode in (EvaluationMode.SPARSE, EvaluationMode.BM25S) else str(self.chunks)
        return ("" if self.mode is EvaluationMode.BM25S else self.system), str(self.mode), chunks


# system, mode, chunks
Column = tuple[str, str, str]


def read_results(paths: Iterable[Path]) -> list[Result]:
    """Read JSON lines; a later line about the same set, length and column replaces an earlier one, in its place.

    :class:`InvalidInput` names the line and the field at fault.
    """
    results: dict[tuple[object, ...], Result] = {}
    for place, line in (found for path in paths for found in read_lines(path, "results")):
        try:
            result = Result.model_validate_json(line)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            raise InvalidInput("results", f"{place}: {field}: {first['msg']}.") from None
        results[result.dataset, result.length, result.column] = result
    return list(results.values())


def columns_of(results: Iterable[Result]) -> list[Column]:
    """List who was measured, in the order of first appearance."""
    return list(dict.fromkeys(result.column for result in results))


def mean_ndcg(results: Iterable[Result], mode: EvaluationMode) -> float | None:
    """Mean nDCG@10 of a mode over its sets; None where it has none."""
    scores = [result.ndcg_at_10 for result in results if result.mode == mode]
    return fmean(scores) if scores else None
