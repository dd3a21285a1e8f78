"""One search: check it, look for candidates, and choose the page that is asked for.

The gRPC service, HTTP, the command line and the evaluation share it. Knows no gRPC and no model.
"""

from __future__ import annotations

import time

from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer
from ingest.documents import DEFAULT_TENANT
from ingest.index.interface import VectorIndex
from services.search.candidates import IndexTimes
from services.search.choosing import choose, wanted_of
from services.search.fusion import FusionWeights
from services.search.looking import Sources, look
from services.search.pages import page_of
from services.search.query_encoding import check_tokens
from services.search.reading import list_chunks
from services.search.requests import (
    ChunksRequest,
    RetrieveRequest,
    SearchRequest,
    SimilarRequest,
    check_retrieve,
    check_search,
    check_similar,
)
from services.search.results import ChunksPage, RetrieveResult, SearchMode, SearchResult, SimilarResult
from services.search.retrieving import make_passages
from services.search.similar import find_similar


class Searcher:
    """Searches one index with one encoder. Safe for many searches at once.

    ``fusion`` says how a hybrid search adds up both halves' scores; without, it adds up their ranks.
    """

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex,
        tokenizer: Tokenizer,
        fusion: FusionWeights | None = None,
    ) -> None:
        self._sources = Sources(encoder, index, tokenizer, fusion)

    async def search(self, request: SearchRequest) -> SearchResult:
        """Find a tenant's best chunks, or documents, fewer only where the index has no more.

        :class:`InvalidInput` names the field at fault; otherwise what the encoder and the index raise.
        """
        started = time.perf_counter()
        check_search(request)
        index = self._sources.index
        page = page_of(request, index.fingerprint)
        wanted = wanted_of(request, page)
        found = await look(self._sources, request, *wanted)
        chosen = await choose(index, request, page, found)
        if chosen is None:
            found = await look(self._sources, request, *wanted, overtaken=found)
            chosen = await choose(index, request, page, found)
            assert chosen is not None
        goes_on = bool(chosen.shown) and page.shown + len(chosen.shown) < page.depth_max
        return SearchResult(
            hits=chosen.hits,
            groups=chosen.groups,
            query_tokens=found.encoded.tokens,
            timings=found.timings(started),
            next_page_token=page.next_token(chosen.shown) if chosen.more and goes_on else "",
            depth_reached=chosen.more and not goes_on,
        )

    async def rank_documents(
        self, query: str, mode: SearchMode, count: int, *, tenant: str = DEFAULT_TENANT
    ) -> list[tuple[str, float]]:
        """Find a tenant's ``count`` best documents, each with the score of its best chunk; best first.

        Fewer come where the index has no more, or where its ``LIMIT_MAX`` best chunks are all of fewer documents.
        Raises what :meth:`search` does.
        """
        request = SearchRequest(query, mode, tenant=tenant, texts=False)
        check_search(request)
        ranking = (await look(self._sources, request, count, lambda found: len(found.document_ids()))).ranking
        best: dict[str, float] = {}
        for key in ranking.order:
            best.setdefault(key.document_id, ranking.scores[key])
        return list(best.items())[:count]

    async def retrieve(self, request: RetrieveRequest) -> RetrieveResult:
        """Find passages whose text block has at most ``token_budget`` tokens, from the best chunks.

        Neighbouring chunks are joined; one that is missing between two is read too, where the budget allows. Raises
        what :meth:`search` raises.
        """
        started = time.perf_counter()
        check_retrieve(request)
        found = await self.search(request.search)
        times = IndexTimes()
        made = await make_passages(self._sources.index, self._sources.tokenizer, found.hits, request, times)
        return RetrieveResult(
            passages=made.passages,
            context=made.context,
            context_tokens=made.tokens,
            query_tokens=found.query_tokens,
            timings=found.timings.followed_by(times.total_s, time.perf_counter() - started),
        )

    async def similar_documents(self, request: SimilarRequest) -> SimilarResult:
        """Find the documents that are most like one of the tenant's, which is not among them.

        :class:`NotFound` where there is no such document; :class:`InvalidInput` names the field at fault.
        """
        check_similar(request)
        return await find_similar(self._sources.index, request)

    async def list_chunks(self, request: ChunksRequest) -> ChunksPage:
        """Read a page of a document's chunks; raises what :func:`services.search.reading.list_chunks` does."""
        return await list_chunks(self._sources.index, request)

    def check_query(self, query: str) -> None:
        """Refuse a query that is empty or too long: :class:`InvalidInput` names ``query``."""
        check_search(SearchRequest(query))
        check_tokens(query, self._sources.tokenizer)
