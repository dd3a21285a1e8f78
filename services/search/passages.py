"""Hits into passages for a language model: neighbours joined, nothing twice, within a budget of tokens. Knows no index.

Chunks hold no white space at their ends and the index does not keep what lies between two, so joined text has a line
break there, or an empty line where the document has more than one character; a passage's offsets are the document's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from ingest.index.interface import ChunkKey, StoredChunk
from services.search.context import entry, text_block
from services.search.duplicates import Said
from services.search.requests import PassageOrder
from services.search.results import Hit, Passage

_Place = tuple[str, int]  # document_id, chunk_index


def select(hits: Sequence[Hit], token_budget: int) -> list[Hit]:
    """Take hits in their order as long as they fit the budget together, passing over those that do not.

    Nothing where the best hit does not fit: the rest would be other than what was asked for. A text that stands in
    several documents, or nearly so, is taken once, where it ranks best.
    """
    taken: list[Hit] = []
    said = Said()
    left = token_budget
    if hits and hits[0].chunk.token_count > token_budget:
        return []
    for hit in hits:
        if hit.chunk.token_count <= left and said.adds(hit.chunk.text):
            taken.append(hit)
            left -= hit.chunk.token_count
    return taken


def neighbours(hits: Sequence[Hit], window: int) -> list[ChunkKey]:
    """Name the chunks to read beside hits, those first that matter most.

    First what is missing between two hits, one chunk alone; then up to ``window`` chunks before and after each hit,
    nearer ones first, and among equally near ones those of better hits.
    """
    taken = {_place(hit.chunk) for hit in hits}
    wanted: dict[_Place, Hit] = {}
    for hit in hits:
        name, index = _place(hit.chunk)
        if (name, index + 1) not in taken and (name, index + 2) in taken:
            wanted.setdefault((name, index + 1), hit)
    for distance in range(1, window + 1):
        for hit in hits:
            name, index = _place(hit.chunk)
            for place in (index - distance, index + distance):
                if 0 <= place < hit.record.chunk_count and (name, place) not in taken:
                    wanted.setdefault((name, place), hit)
    return [
        ChunkKey(hit.chunk.tenant, name, hit.record.generation_of(place), place)
        for (name, place), hit in wanted.items()
    ]


def join(
    hits: Sequence[Hit],
    fillers: Iterable[StoredChunk],
    token_budget: int,
    count_tokens: Callable[[str], int],
    order: PassageOrder = PassageOrder.SCORE,
) -> tuple[list[Passage], int]:
    """Join hits and the chunks beside them into passages, and count the tokens of their text block.

    While that exceeds the budget, first the last fillers and then the lowest hits are left out.
    """
    kept, extra = list(hits), list(fillers)
    counts: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in counts:
            counts[text] = count_tokens(text)
        return counts[text]

    while kept:
        passages = _join_all(kept, extra, order, count)
        # The sum first: most of the entries are those of the round before, and counted.
        if sum(count(entry(passage)) for passage in passages) <= token_budget:
            tokens = count(text_block(passages))
            if tokens <= token_budget:
                return passages, tokens
        if extra:
            extra.pop()
        else:
            kept.pop()
    return [], 0


def _join_all(
    hits: Sequence[Hit], fillers: Sequence[StoredChunk], order: PassageOrder, count: Callable[[str], int]
) -> list[Passage]:
    by_place = {_place(hit.chunk): hit for hit in hits}
    best_ranks: dict[str, int] = {}
    for hit in hits:
        best_ranks.setdefault(hit.chunk.document_id, hit.rank)
    ranked = []
    for run in _runs(sorted([*(hit.chunk for hit in hits), *fillers], key=_place)):
        inside = [by_place[place] for chunk in run if (place := _place(chunk)) in by_place]
        if not inside:  # beside a hit that was left out
            continue
        best = min(inside, key=lambda hit: hit.rank)
        text = _join_text(run)
        passage = Passage(best.record, tuple(run), text, count(text), best.score, best.chunk.headings, number=0)
        by_score = (best.rank, 0)
        as_it_goes = (best_ranks[best.chunk.document_id], run[0].chunk_index)
        ranked.append((as_it_goes if order is PassageOrder.DOCUMENT else by_score, passage))
    ranked.sort(key=lambda item: item[0])
    return [replace(passage, number=number) for number, (_, passage) in enumerate(ranked, start=1)]


def _runs(chunks: Sequence[StoredChunk]) -> list[list[StoredChunk]]:
    runs: list[list[StoredChunk]] = []
    for chunk in chunks:
        last = runs[-1][-1] if runs else None
        if last and (last.document_id, last.chunk_index + 1) == _place(chunk):
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs


def _join_text(run: Sequence[StoredChunk]) -> str:
    parts = [run[0].text]
    for before, chunk in pairwise(run):
        distance = chunk.char_start - before.char_end
        if distance < 0:  # it repeats the end of the chunk before, as chunks may that overlap
            parts.append(chunk.text[-distance:])
            continue
        parts.append("" if distance == 0 else "\n" if distance == 1 else "\n\n")
        parts.append(chunk.text)
    return "".join(parts)


def _place(chunk: StoredChunk) -> _Place:
    return chunk.document_id, chunk.chunk_index
