"""The search service over gRPC, on an index in memory and an encoder that can be slowed down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2
from mambasearch.v1 import search_pb2, search_pb2_grpc
from prometheus_client import CollectorRegistry

from encoder.grpc_errors import DETAILS_KEY
from encoder.interface import Encoded, Encoder
from ingest.index.interface import VectorIndex
from services.backends import Backends
from services.grpc_server import GrpcServer
from services.observing.search_metrics import SearchMetrics
from services.search.many import StreamLimits
from services.search.searcher import Searcher
from services.search_service import SERVICE, SearchServicer
from tests.fakes import FakeEncoder
from tests.searching.corpora import DIMENSION, TOKENIZER, Corpus

CONCURRENCY_MAX = 20


class SlowEncoder(FakeEncoder):
    """Counts what it has been asked, and takes its time for a query that says so."""

    asked = 0
    under_way = 0
    most_under_way = 0

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        self.asked += 1
        if queries[0].startswith("broken"):
            raise KeyError(queries[0])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if queries[0].startswith("slow"):
                await asyncio.sleep(0.3)
            if queries[0].startswith("never"):
                await asyncio.sleep(60)
        finally:
            self.under_way -= 1
        return await super().encode_queries(queries)


@dataclass
class Service:
    encoder: SlowEncoder
    stub: search_pb2_grpc.SearchServiceStub
    channel: grpc.aio.Channel
    servicer: SearchServicer
    registry: CollectorRegistry

    def answered(self, method: str) -> dict[str, float]:
        """Say how many searches of batches or streams are counted, by status."""
        return {
            sample.labels["code"]: sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "mambasearch_search_outcomes_total" and sample.labels["method"] == method
        }


@asynccontextmanager
async def serving(corpus: Corpus, limits: StreamLimits | None = None) -> AsyncIterator[Service]:
    encoder = SlowEncoder(dimension=DIMENSION)

    async def open_index(dimension: int, fingerprint: str) -> VectorIndex:
        return corpus.index

    def make(used: Encoder, opened: VectorIndex) -> Searcher:
        return Searcher(used, opened, TOKENIZER)

    backends = Backends(encoder, open_index, make, "chunker-1")
    assert await backends.check() is None
    registry = CollectorRegistry()
    servicer = SearchServicer(
        backends,
        timeout_s=5,
        concurrency_max=CONCURRENCY_MAX,
        stream_limits=limits or StreamLimits(30, 30),
        metrics=SearchMetrics(registry),
    )
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, grpc_server),
        message_bytes_max=1 << 22,
        calls_max=64,
    )
    await server.start("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Service(encoder, search_pb2_grpc.SearchServiceStub(channel), channel, servicer, registry)
    finally:
        await server.stop()
        await backends.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, as long as a test may take."""
    while not holds():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


def field_at_fault(failure: search_pb2.Failure | grpc.aio.AioRpcError) -> str:
    """Name the field of a BadRequest, of a failed call or of one search's failure."""
    if isinstance(failure, grpc.aio.AioRpcError):
        data = dict(failure.trailing_metadata() or ())[DETAILS_KEY]
        assert isinstance(data, bytes)
        details = status_pb2.Status.FromString(data).details
    else:
        details = failure.details
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in details)
    return str(bad_request.field_violations[0].field)
