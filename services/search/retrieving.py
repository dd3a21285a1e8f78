"""From hits to passages and their text block: what stands beside the hits is read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from encoder.tokenizer import Tokenizer
from ingest.index.interface import StoredChunk, VectorIndex
from services.search.candidates import IndexTimes
from services.search.context import text_block
from services.search.passages import join, neighbours, select
from services.search.reading import read_chunks
from services.search.requests import RetrieveRequest
from services.search.results import Hit, Passage


@dataclass(frozen=True, slots=True)
class MadePassages:
    """Passages and their text block, and how many tokens that has."""

    passages: tuple[Passage, ...]
    context: str
    tokens: int


async def make_passages(
    index: VectorIndex, tokenizer: Tokenizer, hits: Sequence[Hit], request: RetrieveRequest, times: IndexTimes
) -> MadePassages:
    """Select hits, read their neighbours as far as the budget goes, and join them."""
    budget = request.token_budget
    taken = select(hits, budget)
    left = budget - sum(hit.chunk.token_count for hit in taken)
    fillers = await _read_neighbours(index, taken, request, left, times) if left > 0 else []
    passages, tokens = join(taken, fillers, budget, tokenizer.count, request.order)
    return MadePassages(tuple(passages), text_block(passages), tokens)


async def _read_neighbours(
    index: VectorIndex, hits: Sequence[Hit], request: RetrieveRequest, tokens_left: int, times: IndexTimes
) -> list[StoredChunk]:
    """Read the chunks beside hits that fit, those first that matter most."""
    # A chunk has a token at least: what is beyond so many cannot fit.
    wanted = neighbours(hits, request.neighbours)[:tokens_left]
    found = await read_chunks(index, wanted, request.search.consistency, times) if wanted else {}
    fillers = []
    for chunk in (found[key] for key in wanted if key in found):
        if chunk.token_count <= tokens_left:
            fillers.append(chunk)
            tokens_left -= chunk.token_count
    return fillers
