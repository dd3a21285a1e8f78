"""The search service over gRPC: answers, statuses, health, deadlines. Encoder faked, engine real."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from mambasearch.v1 import search_pb2, search_pb2_grpc

from encoder.errors import EncoderUnavailable, FingerprintMismatch, IndexUnavailable, Overloaded
from encoder.interface import Encoded, Encoder, EncoderInfo
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import IndexAnswer, IndexStats, VectorIndex
from services.backends import Backends
from services.grpc_server import GrpcServer
from services.search.many import StreamLimits
from services.search.searcher import Searcher
from services.search_service import SERVICE, SearchServicer
from tests.fakes import FakeEncoder
from tests.indexing import make_chunker, put

CHUNKER = make_chunker()
TOKENIZER = Tokenizer.load(DEFAULT_MODEL_FOLDER)
DOCUMENT = Document(
    "orchard",
    "Apples want cold winters. An orchard that never freezes gives little fruit, whatever the gardener does.\n\n"
    "Prune in February, before the sap rises, and never in the rain.",
    title="Orchard notes",
    source="notes/orchard.md",
)


class MoodyEncoder(FakeEncoder):
    """Away, full, slow or broken, as told."""

    away = False
    full = False
    broken = False
    delay_s = 0.0

    async def info(self) -> EncoderInfo:
        if self.full:
            raise Overloaded("The encoder is full.", 0.5)
        if self.away:
            raise EncoderUnavailable("The encoder is away.")
        return await super().info()

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        if self.full:
            raise Overloaded("The encoder is full.", 0.5)
        if self.away:
            raise EncoderUnavailable("The encoder is away.")
        if self.broken:
            raise KeyError(queries[0])
        await asyncio.sleep(self.delay_s)
        return await super().encode_queries(queries)


class MoodyIndex(EmbeddedIndex):
    """Away or full, as told."""

    away = False
    full = False

    async def stats(self) -> IndexStats:
        if self.full:
            raise Overloaded("The index is full.", 0.5)
        if self.away:
            raise IndexUnavailable("The index is away.")
        return await super().stats()

    async def search(self, *arguments: Any, **options: Any) -> IndexAnswer:
        if self.away:
            raise IndexUnavailable("The index is away.")
        return await super().search(*arguments, **options)


@dataclass
class Running:
    encoder: MoodyEncoder
    index: MoodyIndex
    backends: Backends[Searcher]
    stub: search_pb2_grpc.SearchServiceStub
    channel: grpc.aio.Channel
    health: health_pb2_grpc.HealthStub
    server: GrpcServer
    fingerprints: list[str]

    async def status(self) -> int:
        """Have the backends checked, and ask for the service's health."""
        await self.server.set_serving(await self.backends.check() is None)
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        return answer.status


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    encoder = MoodyEncoder()
    index = await MoodyIndex.open(tmp_path, dimension=384, fingerprint="f", write_bytes_min=0)
    fingerprints: list[str] = []
    await put(index, encoder, CHUNKER, DOCUMENT)

    async def open_index(dimension: int, fingerprint: str) -> VectorIndex:
        fingerprints.append(fingerprint)
        if index.away:
            raise IndexUnavailable("The index is away.")
        return _Kept(index)

    def make(used: Encoder, opened: VectorIndex) -> Searcher:
        return Searcher(used, opened, TOKENIZER)

    backends = Backends(encoder, open_index, make, "chunker-1")
    servicer = SearchServicer(backends, timeout_s=2, concurrency_max=4, stream_limits=StreamLimits(idle_s=5, send_s=5))
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, grpc_server),
        message_bytes_max=1 << 20,
        calls_max=64,
    )
    await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Running(
            encoder,
            index,
            backends,
            search_pb2_grpc.SearchServiceStub(channel),
            channel,
            health_pb2_grpc.HealthStub(channel),
            server,
            fingerprints,
        )
    await server.stop()
    await backends.close()
    await index.close()


class _Kept:
    """An index whose closing is not the backends' business."""

    def __init__(self, index: MoodyIndex) -> None:
        self._index = index

    def __getattr__(self, name: str) -> object:
        return getattr(self._index, name)

    async def close(self) -> None:
        pass


async def failure_of(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value


async def test_search_answers_with_the_whole_hit(running: Running) -> None:
    await running.status()
    answer = await running.stub.Search(search_pb2.SearchRequest(query="apples in cold winters"))
    hit = answer.hits[0]
    assert (hit.rank, hit.document_id, hit.title, hit.source) == (1, "orchard", "Orchard notes", "notes/orchard.md")
    assert hit.text == DOCUMENT.text[hit.char_start : hit.char_end]
    assert hit.document_chars == len(DOCUMENT.text)
    assert hit.HasField("dense_score")
    assert hit.HasField("sparse_score")
    assert answer.query_tokens == 5
    assert answer.timings.total_time_ms >= answer.timings.index_time_ms > 0
    sparse = await running.stub.Search(
        search_pb2.SearchRequest(query="apples", mode=search_pb2.SEARCH_MODE_SPARSE, top_k=1)
    )
    assert len(sparse.hits) == 1
    assert not sparse.hits[0].HasField("dense_score")
    assert sparse.query_tokens == 0


async def test_retrieve_answers_with_passages(running: Running) -> None:
    await running.status()
    answer = await running.stub.Retrieve(search_pb2.RetrieveRequest(query="apples february sap rain orchard"))
    passage = answer.passages[0]
    assert (passage.document_id, passage.chunk_index_first) == ("orchard", 0)
    assert passage.text.split() == DOCUMENT.text[passage.char_start : passage.char_end].split()
    assert answer.token_count == sum(passage.token_count for passage in answer.passages) <= 2048


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"query": " "}, "query"),
        ({"query": "word " * 600}, "query"),
        ({"query": "apples", "top_k": 201}, "top_k"),
        ({"query": "apples", "mode": 77}, "mode"),
    ],
)
async def test_bad_input_names_the_field(running: Running, request_fields: dict, field: str) -> None:
    await running.status()
    failure = await failure_of(running.stub.Search(search_pb2.SearchRequest(**request_fields)))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = await rpc_status.aio.from_call(_Call(failure))
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert bad_request.field_violations[0].field == field
    assert bad_request.field_violations[0].description == failure.details()
    assert field in failure.details()


class _Call:
    """What ``rpc_status`` wants of a call."""

    def __init__(self, failure: grpc.aio.AioRpcError) -> None:
        self._failure = failure

    async def code(self) -> grpc.StatusCode:
        return self._failure.code()

    async def details(self) -> str | None:
        return self._failure.details()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return self._failure.trailing_metadata()


async def test_a_budget_out_of_range_is_named(running: Running) -> None:
    await running.status()
    failure = await failure_of(running.stub.Retrieve(search_pb2.RetrieveRequest(query="a", token_budget=200_000)))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "token_budget is 200000; 1 to 131072 are allowed." in failure.details()


async def test_health_follows_encoder_and_index(running: Running) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    first = await running.health.Check(health_pb2.HealthCheckRequest())
    assert first.status == not_serving
    starting = await failure_of(running.stub.Search(search_pb2.SearchRequest(query="apples")))
    assert starting.code() is grpc.StatusCode.UNAVAILABLE
    assert await running.status() == serving

    running.encoder.away = True
    assert await running.status() == not_serving
    dense = await failure_of(running.stub.Search(search_pb2.SearchRequest(query="apples")))
    assert (dense.code(), dense.details()) == (grpc.StatusCode.UNAVAILABLE, "The encoder is away.")
    sparse = await running.stub.Search(search_pb2.SearchRequest(query="apples", mode=search_pb2.SEARCH_MODE_SPARSE))
    assert len(sparse.hits) == 1

    running.encoder.away, running.index.away = False, True
    assert await running.status() == not_serving
    away = await failure_of(running.stub.Search(search_pb2.SearchRequest(query="apples")))
    assert (away.code(), away.details()) == (grpc.StatusCode.UNAVAILABLE, "The index is away.")

    running.index.away = False
    assert await running.status() == serving
    assert running.fingerprints == ["model=fake chunker=chunker-1"] * 2
    assert (await running.stub.Search(search_pb2.SearchRequest(query="apples"))).hits


async def test_who_is_full_is_not_away(running: Running) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    running.encoder.full = True
    assert await running.status() == not_serving
    starting = await failure_of(running.stub.Search(search_pb2.SearchRequest(query="apples")))
    assert starting.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    running.encoder.full = False
    assert await running.status() == serving
    running.encoder.full = running.index.full = True
    assert await running.status() == serving
    full = await failure_of(running.stub.Search(search_pb2.SearchRequest(query="apples")))
    assert (full.code(), full.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "The encoder is full.")

    running.encoder.full = running.index.full = False
    assert await running.status() == serving
    assert len(running.fingerprints) == 1  # nothing was connected anew
    assert (await running.stub.Search(search_pb2.SearchRequest(query="apples"))).hits


async def test_an_index_of_another_model_is_not_served(running: Running) -> None:
    async def refuse(dimension: int, fingerprint: str) -> VectorIndex:
        raise FingerprintMismatch(f"The index was made with f, but {fingerprint} is in use.")

    running.backends._open_index = refuse
    assert await running.status() == health_pb2.HealthCheckResponse.NOT_SERVING
    failure = await failure_of(running.stub.Search(search_pb2.SearchRequest(query="apples")))
    assert failure.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "model=fake chunker=chunker-1" in failure.details()


async def test_a_deadline_is_the_clients_or_ours(running: Running) -> None:
    await running.status()
    running.encoder.delay_s = 30
    request = search_pb2.SearchRequest(query="apples")
    failure = await failure_of(running.stub.Search(request, timeout=0.2))
    assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    failure = await failure_of(running.stub.Search(request))
    assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert failure.details() == "No answer within the deadline; try again, or allow more time."


async def test_too_many_searches_are_refused_with_a_delay(running: Running) -> None:
    await running.status()
    running.encoder.delay_s = 0.5
    calls = [running.stub.Search(search_pb2.SearchRequest(query="apples")) for _ in range(7)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert len(refused) == 3
    for failure in refused:
        assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        status = await rpc_status.aio.from_call(_Call(failure))
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.ToMilliseconds() == 500


async def test_unforeseen_failures_are_logged_but_not_shown(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    await running.status()
    running.encoder.broken = True
    failure = await failure_of(running.stub.Search(search_pb2.SearchRequest(query="my secret")))
    assert failure.code() is grpc.StatusCode.INTERNAL
    incident = failure.details().partition("incident ")[2].partition(")")[0]
    assert len(incident) == 12
    assert "secret" not in failure.details()
    assert incident in caplog.text
    assert "KeyError" in caplog.text
    assert "encode_queries" in caplog.text
    assert "secret" not in caplog.text


async def test_reflection_names_the_service(running: Running) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answers = [answer async for answer in stub.ServerReflectionInfo(requests)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


async def test_stopping_lets_a_running_search_end(running: Running) -> None:
    await running.status()
    running.encoder.delay_s = 0.5
    call = asyncio.ensure_future(running.stub.Search(search_pb2.SearchRequest(query="apples")))
    await asyncio.sleep(0.2)
    await running.server.stop()
    assert (await call).hits
