"""What a search engine answered to the queries of a set: documents from chunks, and files in TREC's format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoder.errors import InvalidInput
from encoder.jsonl import read_lines


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document in the answer to a query."""

    document_id: str
    score: float  # its best chunk's


# Query id -> its documents, best first, each once.
Run = dict[str, list[RankedDocument]]


def rank_documents(chunks: Iterable[tuple[str, float]], limit: int) -> list[RankedDocument]:
    """Turn chunks ``(document_id, score)``, best first, into at most ``limit`` documents by their best chunk."""
    best: dict[str, float] = {}
    for document_id, score in chunks:
        if document_id not in best:
            if len(best) == limit:
                break
            best[document_id] = score
    return [RankedDocument(document_id, score) for document_id, score in best.items()]


def cut_run(run: Run, limit: int) -> Run:
    """Keep the first documents of each query."""
    return {query_id: ranked[:limit] for query_id, ranked in run.items()}


def strict_scores(ranked: Sequence[RankedDocument]) -> list[float]:
    """Scores in float32 that fall with every rank: trec_eval reads ranks from scores, and orders ties by its own rule.

    A score that does not fall is set the least step below the one before it.
    """
    scores: list[np.float32] = []
    for document in ranked:
        score = np.float32(document.score)
        if scores and score >= scores[-1]:
            score = np.nextafter(scores[-1], np.float32(-np.inf))
        scores.append(score)
    return [float(score) for score in scores]


def read_trec_run(path: Path) -> Run:
    """Read ``query Q0 document rank score tag`` lines; documents are ordered by score, as trec_eval orders them.

    :class:`InvalidInput` names the line at fault: other than six fields, a score that is no number, a document twice.
    """
    found: dict[str, dict[str, float]] = {}
    for place, line in read_lines(path, "run"):
        fields = line.split()
        if len(fields) != 6:
            message = f"{place} has {len(fields)} fields; query, Q0, document, rank, score and tag are wanted."
            raise InvalidInput("run", message)
        query_id, _, document_id, _, score, _ = fields
        documents = found.setdefault(query_id, {})
        if document_id in documents:
            raise InvalidInput("run", f"{place}: document {document_id!r} occurs twice for query {query_id!r}.")
        documents[document_id] = _score(place, score)
    if not found:
        raise InvalidInput("run", f"{path} holds no run; each line is query, Q0, document, rank, score and tag.")
    return {
        query_id: [RankedDocument(*item) for item in sorted(documents.items(), key=_by_score, reverse=True)]
        for query_id, documents in found.items()
    }


def _score(place: str, score: str) -> float:
    try:
        value = float(score)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput("run", f"{place}: score is {score!r}; it must be a number.")
    return value


def _by_score(item: tuple[str, float]) -> tuple[float, str]:
    document_id, score = item
    return score, document_id


def write_trec_run(path: Path, run: Mapping[str, Sequence[RankedDocument]], tag: str) -> None:
    """Write ``query Q0 document rank score tag`` lines.

    :class:`InvalidInput` where the file cannot be written, or an id holds white space, which the format has no way to
    say.
    """
    for name in (*run, *(document.document_id for ranked in run.values() for document in ranked)):
        if name.split() != [name]:
            raise InvalidInput("run", f"id {name!r} holds white space, which a TREC run cannot hold; rename it.")
    try:
        with path.open("w", encoding="utf-8") as file:
            for query_id, ranked in run.items():
                for rank, (document, score) in enumerate(zip(ranked, strict_scores(ranked), strict=True), start=1):
                    file.write(f"{query_id} Q0 {document.document_id} {rank} {score:.9g} {tag}\n")
    except OSError as error:
        raise InvalidInput("run", f"{path} cannot be written ({error.strerror}).") from error
