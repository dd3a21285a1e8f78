"""The search service: ``SearchService`` over gRPC. Run with ``python -m services.search_service``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from mambasearch.v1 import search_pb2, search_pb2_grpc

from encoder.errors import InvalidInput, Overloaded
from encoder.tokenizer import Tokenizer
from ingest.chunk_making import make_chunk_making
from ingest.documents import named_tenant
from services.backends import Backends, make_backends, serve_until
from services.fusion import FusionWeights
from services.grpc_server import GrpcServer, stop_signal
from services.process import run
from services.results import Hit, Passage, SearchMode, SearchTimings
from services.searcher import Searcher
from services.settings import SearchSettings

SERVICE = search_pb2.DESCRIPTOR.services_by_name["SearchService"].full_name
TOP_K_DEFAULT = 10
RETRIEVE_TOP_K_DEFAULT = 50
TOKEN_BUDGET_DEFAULT = 2048
# Two hundred hits with long titles and texts.
_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_RETRY_AFTER_S = 0.5

_MODES = {
    search_pb2.SEARCH_MODE_UNSPECIFIED: SearchMode.HYBRID,
    search_pb2.SEARCH_MODE_DENSE: SearchMode.DENSE,
    search_pb2.SEARCH_MODE_SPARSE: SearchMode.SPARSE,
    search_pb2.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
}


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """Turns messages into searches and back; its exceptions become statuses in the server's interceptor."""

    def __init__(self, backends: Backends[Searcher], *, timeout_s: float, concurrency_max: int) -> None:
        self._backends = backends
        self._timeout_s = timeout_s
        self._concurrency_max = concurrency_max
        self._running = 0

    async def Search(  # noqa: N802 - the proto's name
        self, request: search_pb2.SearchRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> search_pb2.SearchResponse:
        """Find the chunks that answer a query best."""
        mode, top_k = _mode(request.mode), request.top_k or TOP_K_DEFAULT
        tenant = named_tenant(request.tenant)
        with self._place():
            async with asyncio.timeout(self._time_left_s(context)):
                found = await self._backends.get().search(request.query, mode, top_k, tenant=tenant)
        return search_pb2.SearchResponse(
            hits=[_hit_message(hit) for hit in found.hits],
            query_tokens=found.query_tokens,
            timings=_timings_message(found.timings),
        )

    async def Retrieve(  # noqa: N802 - the proto's name
        self, request: search_pb2.RetrieveRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> search_pb2.RetrieveResponse:
        """Find passages for a language model's context."""
        mode, top_k = _mode(request.mode), request.top_k or RETRIEVE_TOP_K_DEFAULT
        budget = request.token_budget or TOKEN_BUDGET_DEFAULT
        tenant = named_tenant(request.tenant)
        with self._place():
            async with asyncio.timeout(self._time_left_s(context)):
                found = await self._backends.get().retrieve(request.query, mode, budget, top_k, tenant=tenant)
        return search_pb2.RetrieveResponse(
            passages=[_passage_message(passage) for passage in found.passages],
            token_count=sum(passage.token_count for passage in found.passages),
            timings=_timings_message(found.timings),
        )

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._running >= self._concurrency_max:
            raise Overloaded(
                f"{self._concurrency_max} searches are under way, which is the limit; try again in {_RETRY_AFTER_S} s.",
                _RETRY_AFTER_S,
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def _time_left_s(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        """Give the client's deadline or our own, whichever is earlier."""
        remaining = context.time_remaining()
        return self._timeout_s if remaining is None else min(remaining, self._timeout_s)


def _mode(value: search_pb2.SearchMode) -> SearchMode:
    try:
        return _MODES[value]
    except KeyError:
        names = ", ".join(f"{number} ({mode.value})" for number, mode in _MODES.items() if number)
        raise InvalidInput("mode", f"mode is {value}; {names} are known, and 0 is the default.") from None


def _timings_message(timings: SearchTimings) -> search_pb2.SearchTimings:
    return search_pb2.SearchTimings(
        encode_time_ms=timings.encode_time_ms,
        index_time_ms=timings.index_time_ms,
        total_time_ms=timings.total_time_ms,
    )


def _hit_message(hit: Hit) -> search_pb2.Hit:
    return search_pb2.Hit(
        rank=hit.rank,
        score=hit.score,
        document_id=hit.chunk.document_id,
        title=hit.record.title,
        source=hit.record.source,
        chunk_index=hit.chunk.chunk_index,
        char_start=hit.chunk.char_start,
        char_end=hit.chunk.char_end,
        text=hit.chunk.text,
        token_count=hit.chunk.token_count,
        document_chars=hit.record.char_count,
        dense_score=hit.dense_score,
        sparse_score=hit.sparse_score,
        line_start=hit.chunk.line_start,
        line_end=hit.chunk.line_end,
        headings=hit.chunk.headings,
    )


def _passage_message(passage: Passage) -> search_pb2.Passage:
    return search_pb2.Passage(
        document_id=passage.record.document_id,
        title=passage.record.title,
        source=passage.record.source,
        chunk_index_first=passage.chunks[0].chunk_index,
        chunk_index_last=passage.chunks[-1].chunk_index,
        char_start=passage.char_start,
        char_end=passage.char_end,
        text=passage.text,
        token_count=passage.token_count,
        score=passage.score,
    )


async def serve(settings: SearchSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let running searches end."""
    stop = stop_signal()
    tokenizer = await asyncio.to_thread(Tokenizer.load, settings.query_model)
    fusion = await asyncio.to_thread(FusionWeights.load, settings.query_model)
    backends = make_backends(
        settings,
        lambda encoder, index: Searcher(encoder, index, tokenizer, fusion),
        make_chunk_making(settings.chunk_rules(), tokenizer).fingerprint,
        encoder_timeout_s=min(settings.encoder_timeout_s, settings.search_timeout_s),
        requests_max=settings.search_concurrency_max,
    )
    servicer = SearchServicer(
        backends, timeout_s=settings.search_timeout_s, concurrency_max=settings.search_concurrency_max
    )
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, grpc_server),
        message_bytes_max=_MESSAGE_BYTES_MAX,
        calls_max=2 * settings.search_concurrency_max,
    )
    await serve_until(stop, server, settings.search_host, settings.search_port, backends)


def main() -> int:
    """Run the process."""
    return run("search", SearchSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
