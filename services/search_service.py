"""The search service: ``SearchService`` over gRPC. Run with ``python -m services.search_service``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import fields, replace
from typing import Any, TypeAlias

import grpc
from google.rpc import code_pb2
from mambasearch.v1 import search_pb2, search_pb2_grpc

from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer
from ingest.chunk_making import make_chunk_making
from services.backends import Backends, encoder_service, make_backends, serve_until
from services.door.door import make_door
from services.encoding.counting import counting_hooks, look_from_outside
from services.encoding.local_queries import LocalQueries, encodes_here, load_local_encoder
from services.encoding.scheduler import Limits
from services.grpc_server import GrpcServer, serving_as, stop_signal
from services.http.calling import WATCH_JOB
from services.http.serving import http_serving
from services.observing.encoder_metrics import EncoderMetrics, QueueMetrics
from services.observing.process import Observed, observing
from services.observing.search_metrics import IndexSizeMetrics, SearchMetrics
from services.process import run
from services.search.answer_messages import (
    chunks_to_message,
    retrieve_to_message,
    search_to_message,
    similar_to_message,
)
from services.search.fusion import FusionWeights
from services.search.many import BATCH_SEARCHES_MAX, StreamLimits, answer_batch, answer_stream, check_batch
from services.search.places import Places
from services.search.read_mask import mask_of, wants
from services.search.request_messages import (
    chunks_from_message,
    retrieve_from_message,
    search_from_message,
    similar_from_message,
)
from services.search.requests import QUERY_TOKENS_MAX
from services.search.results import SearchTimings
from services.search.searcher import Searcher
from services.settings import SearchSettings

SERVICE = search_pb2.DESCRIPTOR.services_by_name["SearchService"].full_name
# Two hundred hits with long titles and texts.
_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
# Of queries that are embedded together here: more would keep those who came first waiting.
_QUERY_BATCH_TOKENS = 2048
# Where hits stand in the answer of a search, and what of them has to be read of the index at the end.
_HITS = (("hits",), ("groups", "hits"))
_READ = ("text", "char_start", "char_end", "line_start", "line_end", "token_count", "headings")
_SEARCH = search_pb2.SearchResponse.DESCRIPTOR
_RETRIEVE = search_pb2.RetrieveResponse.DESCRIPTOR
_SIMILAR = search_pb2.SimilarDocumentsResponse.DESCRIPTOR
_CHUNKS = search_pb2.ListChunksResponse.DESCRIPTOR

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """Turns messages into searches and back; its exceptions become statuses in the server's interceptor."""

    def __init__(
        self,
        backends: Backends[Searcher],
        *,
        timeout_s: float,
        concurrency_max: int,
        stream_limits: StreamLimits,
        metrics: SearchMetrics | None = None,
    ) -> None:
        self._backends = backends
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._places = Places(concurrency_max)
        self._stream_limits = stream_limits

    async def Search(  # noqa: N802 - the proto's name
        self, request: search_pb2.SearchRequest, context: _Context
    ) -> search_pb2.SearchResponse:
        """Find the chunks that answer a query best."""
        with self._places.taken():
            return await self._search(request, self._time_left_s(context))

    async def BatchSearch(  # noqa: N802 - the proto's name
        self, request: search_pb2.BatchSearchRequest, context: _Context
    ) -> search_pb2.BatchSearchResponse:
        """Answer several searches, each on its own."""
        check_batch(request)
        ends = asyncio.get_running_loop().time() + self._time_left_s(context)

        async def answer(one: search_pb2.SearchRequest) -> search_pb2.SearchResponse:
            return await self._search(one, ends - asyncio.get_running_loop().time())

        at_once = max(1, min(BATCH_SEARCHES_MAX, len(request.requests), self._places.free))
        with self._places.taken(at_once):
            outcomes = await answer_batch(answer, request.requests, at_once)
        for outcome in outcomes:
            self._count_outcome("BatchSearch", outcome)
        return search_pb2.BatchSearchResponse(outcomes=outcomes)

    async def SearchStream(  # noqa: N802 - the proto's name
        self, requests: AsyncIterator[search_pb2.SearchStreamRequest], context: _Context
    ) -> AsyncGenerator[search_pb2.SearchStreamResponse]:
        """Answer searches as they come."""

        async def answer(one: search_pb2.SearchRequest) -> search_pb2.SearchResponse:
            with self._places.taken():
                return await self._search(one, self._time_left_s(context))

        async def send(response: search_pb2.SearchStreamResponse) -> None:
            # Written here and not yielded: a write can be given up, where the client takes nothing.
            await context.write(response)
            self._count_outcome("SearchStream", response.outcome)

        await answer_stream(answer, requests, send, self._stream_limits)
        none_left: tuple[search_pb2.SearchStreamResponse, ...] = ()
        for response in none_left:
            yield response

    async def Retrieve(  # noqa: N802 - the proto's name
        self, request: search_pb2.RetrieveRequest, context: _Context
    ) -> search_pb2.RetrieveResponse:
        """Find passages for a language model's context."""
        asked, mask = retrieve_from_message(request), mask_of(request.read_mask.paths, _RETRIEVE)
        with self._places.taken():
            async with asyncio.timeout(self._time_left_s(context)):
                found = await self._backends.get().retrieve(asked)
        self._count(found.timings, found.query_tokens)
        return retrieve_to_message(found, mask)

    async def SimilarDocuments(  # noqa: N802 - the proto's name
        self, request: search_pb2.SimilarDocumentsRequest, context: _Context
    ) -> search_pb2.SimilarDocumentsResponse:
        """Find documents like another."""
        asked, mask = similar_from_message(request), mask_of(request.read_mask.paths, _SIMILAR)
        with self._places.taken():
            async with asyncio.timeout(self._time_left_s(context)):
                found = await self._backends.get().similar_documents(asked)
        self._count(found.timings, 0)
        return similar_to_message(found, mask)

    async def ListChunks(  # noqa: N802 - the proto's name
        self, request: search_pb2.ListChunksRequest, context: _Context
    ) -> search_pb2.ListChunksResponse:
        """Read a document's chunks."""
        asked, mask = chunks_from_message(request), mask_of(request.read_mask.paths, _CHUNKS)
        with self._places.taken():
            async with asyncio.timeout(self._time_left_s(context)):
                return chunks_to_message(await self._backends.get().list_chunks(asked), mask)

    async def _search(self, request: search_pb2.SearchRequest, time_left_s: float) -> search_pb2.SearchResponse:
        asked, mask = search_from_message(request), mask_of(request.read_mask.paths, _SEARCH)
        explained = any(wants(mask, *place, "explanation") for place in _HITS)
        texts = any(wants(mask, *place, name) for place in _HITS for name in _READ)
        asked = replace(asked, explain=asked.explain and explained, texts=texts)
        async with asyncio.timeout(time_left_s):
            found = await self._backends.get().search(asked)
        self._count(found.timings, found.query_tokens)
        return search_to_message(found, mask)

    def _count(self, timings: SearchTimings, query_tokens: int) -> None:
        if self._metrics:
            stages = {one.name.removesuffix("_time_ms"): getattr(timings, one.name) for one in fields(timings)}
            self._metrics.searched({stage: value for stage, value in stages.items() if value}, query_tokens)

    def _count_outcome(self, method: str, outcome: search_pb2.SearchOutcome) -> None:
        if self._metrics:
            self._metrics.answered(f"SearchService/{method}", code_pb2.Code.Name(outcome.failure.code))

    def _time_left_s(self, context: _Context) -> float:
        """Give the client's deadline or our own, whichever is earlier."""
        remaining = context.time_remaining()
        return self._timeout_s if remaining is None else min(remaining, self._timeout_s)


async def serve(settings: SearchSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let running searches end."""
    async with observing("search", settings, settings.search_metrics_port) as observed:
        await _serve(settings, observed)


async def _serve(settings: SearchSettings, observed: Observed) -> None:
    stop = stop_signal()
    tokenizer = await asyncio.to_thread(Tokenizer.load, settings.query_model)
    fusion = await asyncio.to_thread(FusionWeights.load, settings.query_model)
    backends = make_backends(
        settings,
        await _encoder(settings, observed),
        lambda encoder, index: Searcher(encoder, index, tokenizer, fusion),
        make_chunk_making(settings.chunk_rules(), tokenizer).fingerprint,
        on_stats=IndexSizeMetrics(observed.registry).measured,
    )
    servicer = SearchServicer(
        backends,
        timeout_s=settings.search_timeout_s,
        concurrency_max=settings.search_concurrency_max,
        stream_limits=StreamLimits(settings.search_stream_idle_s, settings.search_stream_send_s),
        metrics=SearchMetrics(observed.registry),
    )
    door = make_door(
        settings,
        "search",
        settings.search_concurrency_max,
        own_calls_max={WATCH_JOB: settings.http_streams_max},
        refused=observed.calls.metrics.refused,
    )
    serving = serving_as(settings, settings.search_health_port)
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, grpc_server),
        message_bytes_max=_MESSAGE_BYTES_MAX,
        calls_max=2 * settings.search_concurrency_max,
        door=door,
        serving=serving,
        interceptors=observed.interceptors,
    )
    observed.calls.metrics.tell_serving(lambda: server.is_serving)
    async with http_serving(
        settings,
        search=servicer,
        encoder=backends.encoder,
        door=door,
        certificates=serving.certificates,
        is_serving=lambda: server.is_serving,
        registry=observed.registry,
        observer=observed.calls,
        timeout_s=settings.search_timeout_s,
    ):
        await serve_until(stop, server, settings.search_host, settings.search_port, backends)


async def _encoder(settings: SearchSettings, observed: Observed) -> Encoder:
    """Make what embeds queries: the encoder service, or a model in this process with that service beside it."""
    timeout_s = min(settings.encoder_timeout_s, settings.search_timeout_s)
    service = encoder_service(settings, timeout_s=timeout_s, requests_max=settings.search_concurrency_max)
    if not await asyncio.to_thread(encodes_here, settings):
        return service
    limits = Limits(
        batch_tokens=_QUERY_BATCH_TOKENS,
        requests_max=settings.search_concurrency_max,
        tokens_max=settings.search_concurrency_max * QUERY_TOKENS_MAX,
        documents_max=0,
    )
    queries = await load_local_encoder(settings)
    metrics = EncoderMetrics(observed.registry)
    encoder = LocalQueries(queries, service, limits, timeout_s=timeout_s, hooks=counting_hooks(metrics))
    loop = asyncio.get_running_loop()
    observed.registry.register(QueueMetrics(lambda lane: look_from_outside(loop, encoder.queue_state, lane)))
    return encoder


def main() -> int:
    """Run the process."""
    return run("search", SearchSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
