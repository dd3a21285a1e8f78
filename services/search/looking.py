"""The first part of every search: encode the query, ask the index for candidates, rank them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer
from ingest.index.interface import DocumentRecord, HitsRead, Scope, VectorIndex
from ingest.sparse import sparse_query
from services.search.candidates import Asked, Candidates, IndexTimes, find_candidates
from services.search.fusion import FusionWeights
from services.search.query_encoding import EncodedQuery, already, begin_encoding
from services.search.ranking import Ranking, fusion_rule, rank
from services.search.reading import keep_similar
from services.search.requests import SearchRequest
from services.search.results import SearchMode, SearchTimings


@dataclass(frozen=True, slots=True)
class Sources:
    """What searches are made with."""

    encoder: Encoder
    index: VectorIndex
    tokenizer: Tokenizer
    fusion: FusionWeights | None


@dataclass(slots=True)
class Look:
    """What the index had for a query, ranked."""

    ranking: Ranking
    encoded: EncodedQuery
    times: IndexTimes
    exhausted: bool  # whether the index has no more
    fuse_time_s: float  # so far
    records: Mapping[str, DocumentRecord] | None = None  # of all candidates, by document_id, where they were read
    read: HitsRead = ({}, {})  # along with the candidates: chunks and records of some

    def timings(self, started: float) -> SearchTimings:
        """Say where the time went since ``started``, by :func:`time.perf_counter`."""
        return SearchTimings(
            encode_time_ms=1000 * self.encoded.time_s,
            index_time_ms=1000 * self.times.total_s,
            total_time_ms=1000 * (time.perf_counter() - started),
            queue_time_ms=1000 * self.encoded.queue_time_s,
            tokenize_time_ms=1000 * self.encoded.tokenize_time_s,
            dense_time_ms=1000 * self.times.dense_s,
            sparse_time_ms=1000 * self.times.sparse_s,
            records_time_ms=1000 * self.times.records_s,
            fuse_time_ms=1000 * self.fuse_time_s,
        )


async def look(
    sources: Sources,
    request: SearchRequest,
    wanted: int,
    count: Callable[[Candidates], int],
    overtaken: Look | None = None,
) -> Look:
    """Find candidates until ``count`` says that ``wanted`` are there, or no more are to be had, and rank them.

    In the place of a look that was ``overtaken``, this one reads the records of all candidates, so that nothing can be.
    """
    mode, times, index = request.scored_by, overtaken.times if overtaken else IndexTimes(), sources.index
    rule = fusion_rule(request.fusion, sources.fusion)
    encoding = (
        already(overtaken.encoded)
        if overtaken
        else begin_encoding(request, sources.encoder, sources.tokenizer, index.dimension)
    )
    asked = Asked(
        encoding if mode is not SearchMode.SPARSE else None,
        sparse_query(request.query) if mode is not SearchMode.DENSE else None,
        Scope(request.tenant, filter=request.filter, consistency=request.consistency),
        times,
        read_first=wanted if _shows_first(request, wanted) else 0,
    )
    try:
        found = await find_candidates(index, asked, wanted, count, with_records=overtaken is not None)
        encoded = await encoding
    finally:
        encoding.cancel()
        await asyncio.gather(encoding, return_exceptions=True)
    started = time.perf_counter()
    ranking = rank(found, mode, rule, encoded.embedding)
    fuse_time_s = time.perf_counter() - started + (overtaken.fuse_time_s if overtaken else 0.0)
    exhausted = found.exhausted
    if request.min_score is not None:
        # What the dense half has not found is less alike than what it has.
        exhausted = exhausted or min(ranking.dense.scores.values(), default=-1.0) < request.min_score
        ranking = await keep_similar(index, ranking, request.min_score, times)
    return Look(ranking, encoded, times, exhausted, fuse_time_s, found.records, found.read)


def _shows_first(request: SearchRequest, wanted: int) -> bool:
    """Say whether the texts of the first candidates are wanted: not where diversity, groups or pages show others."""
    return request.texts and request.mmr_lambda is None and request.group_chunks is None and wanted <= request.top_k
