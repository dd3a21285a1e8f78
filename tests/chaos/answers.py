"""What is known to be right: each question's answer of a quiet moment, and whether another one says the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mambasearch.v1 import search_pb2

TOP_K = 5
KNOWN = 2 * TOP_K  # hits that are remembered: an embedding's last bits may swap neighbours at the end
# An embedding differs in its last bits by what else is read with it, and scores with it.
TOLERANCE = 2e-3

Place = tuple[str, int]  # document id and chunk index


@dataclass(frozen=True, slots=True)
class Known:
    """The right answer to a question."""

    scores: Mapping[Place, float]  # of KNOWN hits
    best: Sequence[float]  # scores of the first TOP_K, best first


def remember(answer: search_pb2.SearchResponse) -> Known:
    """Keep an answer of KNOWN hits."""
    scores = {(hit.document_id, hit.chunk_index): hit.score for hit in answer.hits}
    return Known(scores, sorted(scores.values(), reverse=True)[:TOP_K])


def fault_of(answer: search_pb2.SearchResponse, known: Known) -> str:
    """Say what is wrong with an answer of TOP_K hits; nothing where it is right."""
    if len(answer.hits) != len(known.best):
        return f"{len(answer.hits)} hits in place of {len(known.best)}"
    for hit, score in zip(answer.hits, known.best, strict=True):
        right = known.scores.get((hit.document_id, hit.chunk_index))
        allowed = TOLERANCE * max(1.0, abs(score))
        if right is None or abs(hit.score - right) > allowed:
            return f"{hit.document_id} has score {hit.score:.4f}; known is {right}"
        if abs(hit.score - score) > allowed:
            return f"rank {hit.rank} has score {hit.score:.4f}; known is {score:.4f}"
    return ""
