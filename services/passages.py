"""Hits into passages for a language model: neighbours joined, nothing twice, within a budget of tokens. Knows no index.

Chunks hold no white space at their ends and the index does not keep what lies between two, so joined text has a line
break there, or an empty line where the document has more than one character; a passage's offsets are the document's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from ingest.index.interface import StoredChunk
from services.results import Hit, Passage


def select(hits: Sequence[Hit], token_budget: int) -> list[Hit]:
    """Take hits in their order as long as they fit the budget together, passing over those that do not.

    Nothing where the best hit does not fit: the rest would be other than what was asked for. A text that stands in
    several documents is taken once, where it ranks best.
    """
    taken: list[Hit] = []
    texts: set[str] = set()
    left = token_budget
    if hits and hits[0].chunk.token_count > token_budget:
        return []
    for hit in hits:
        if hit.chunk.token_count <= left and hit.chunk.text not in texts:
            taken.append(hit)
            texts.add(hit.chunk.text)
            left -= hit.chunk.token_count
    return taken


def single_gaps(hits: Sequence[Hit]) -> list[tuple[Hit, int]]:
    """Find chunks that are missing between two of the hits: with the hit before, and the missing chunk's index."""
    places = {(hit.chunk.document_id, hit.chunk.chunk_index) for hit in hits}
    return [
        (hit, hit.chunk.chunk_index + 1)
        for hit in hits
        if (hit.chunk.document_id, hit.chunk.chunk_index + 1) not in places
        and (hit.chunk.document_id, hit.chunk.chunk_index + 2) in places
    ]


def join(
    hits: Sequence[Hit], fillers: Iterable[StoredChunk], token_budget: int, count_tokens: Callable[[str], int]
) -> list[Passage]:
    """Join hits and the chunks that fill gaps between them into passages, best first.

    ``count_tokens`` counts the joined texts, which may differ from the sum of their chunks where a cut went through a
    word; while they exceed the budget, first fillers and then the lowest hits are left out.
    """
    kept, extra = list(hits), list(fillers)
    while True:
        passages = _join_all(kept, extra, count_tokens)
        if sum(passage.token_count for passage in passages) <= token_budget:
            return passages
        if extra:
            extra.pop()
        else:
            kept.pop()


def _join_all(hits: Sequence[Hit], fillers: Sequence[StoredChunk], count_tokens: Callable[[str], int]) -> list[Passage]:
    by_place = {(hit.chunk.document_id, hit.chunk.chunk_index): hit for hit in hits}
    chunks = sorted([*(hit.chunk for hit in hits), *fillers], key=lambda chunk: (chunk.document_id, chunk.chunk_index))
    runs: list[list[StoredChunk]] = []
    for chunk in chunks:
        last = runs[-1][-1] if runs else None
        if last and (last.document_id, last.chunk_index + 1) == (chunk.document_id, chunk.chunk_index):
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    passages = []
    for run in runs:
        inside = [hit for chunk in run if (hit := by_place.get((chunk.document_id, chunk.chunk_index)))]
        best = min(inside, key=lambda hit: hit.rank)
        text = _join_text(run)
        passages.append((best.rank, Passage(best.record, tuple(run), text, count_tokens(text), best.score)))
    return [passage for _, passage in sorted(passages, key=lambda ranked: ranked[0])]


def _join_text(run: Sequence[StoredChunk]) -> str:
    parts = [run[0].text]
    for before, chunk in pairwise(run):
        distance = chunk.char_start - before.char_end
        parts.append("" if distance == 0 else "\n" if distance == 1 else "\n\n")
        parts.append(chunk.text)
    return "".join(parts)
