"""Calls of a real gRPC server: counted, timed, named, logged."""
# ruff: noqa: N802 - methods are named by the protocol

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, jobs_pb2, search_pb2, search_pb2_grpc
from prometheus_client import CollectorRegistry

from encoder.call_context import current_call, span, within
from encoder.errors import InvalidInput, Overloaded
from encoder.traced_channel import TracedChannel
from services.observing.call_metrics import CallMetrics
from services.observing.calls import LINES_PER_SECOND_MAX, CallObserver
from services.observing.interceptor import CallInterceptor
from services.observing.logs import FIELDS
from services.status import StatusInterceptor
from tests.observing.spans import Recorder

SECRET = "what nobody is to read in a log"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Searching(search_pb2_grpc.SearchServiceServicer):
    """Fails as the query says."""

    async def Search(self, request: search_pb2.SearchRequest, context: Any) -> search_pb2.SearchResponse:
        call = current_call()
        assert call
        call.notes["encode_ms"] = 1.5
        match request.query:
            case "bad":
                raise InvalidInput("query", f"query is {SECRET}.")
            case "full":
                raise Overloaded("Full.", 1.0)
            case "broken":
                raise ValueError(SECRET)
            case "slow":
                await asyncio.sleep(30)
        with span("work"):
            return search_pb2.SearchResponse(query_tokens=len(call.request_id))


class Ingesting(ingest_pb2_grpc.IngestServiceServicer):
    """Answers for ever."""

    async def IngestDocuments(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield ingest_pb2.IngestDocumentsResponse(document_id="one")

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            yield jobs_pb2.Job(job_id=request.job_id)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(observer: CallObserver) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[CallInterceptor(observer), StatusInterceptor()])
    search_pb2_grpc.add_SearchServiceServicer_to_server(Searching(), server)
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(Ingesting(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def ask(channel: Any, query: str, **options: Any) -> Any:
    return await search_pb2_grpc.SearchServiceStub(channel).Search(search_pb2.SearchRequest(query=query), **options)


async def test_calls_are_counted_by_method_and_status(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    async with serving(CallObserver(CallMetrics(registry))) as channel:
        await ask(channel, "good")
        for query, timeout in (("bad", None), ("full", None), ("broken", None), ("slow", 0.05)):
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(channel, query, timeout=timeout)
        abandoned = asyncio.ensure_future(ask(channel, "slow"))
        await asyncio.sleep(0.05)
        assert value(registry, "mambasearch_requests_in_flight", method="SearchService/Search") == 1
        abandoned.cancel()
        await asyncio.gather(abandoned, return_exceptions=True)
        await asyncio.sleep(0.05)
    counts = {
        code: value(registry, "mambasearch_requests_total", method="SearchService/Search", code=code)
        for code in ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED")
    }
    assert counts["OK"] == counts["INVALID_ARGUMENT"] == counts["RESOURCE_EXHAUSTED"] == counts["INTERNAL"] == 1
    assert (counts["DEADLINE_EXCEEDED"] or 0) + (counts["CANCELLED"] or 0) == 2
    assert value(registry, "mambasearch_request_duration_seconds_count", method="SearchService/Search") == 6
    assert value(registry, "mambasearch_requests_in_flight", method="SearchService/Search") == 0
    assert SECRET not in caplog.text.replace("raise ValueError", "")


async def test_a_stream_that_its_client_leaves_is_cancelled_and_has_no_duration() -> None:
    registry = CollectorRegistry()
    async with serving(CallObserver(CallMetrics(registry))) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        watching = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id="j"))
        await watching.read()
        watching.cancel()
        answers = [answer async for answer in stub.IngestDocuments(iter([ingest_pb2.IngestDocumentsRequest()]))]
        assert len(answers) == 1
        await asyncio.sleep(0.1)
    watched, ingested = "IngestService/WatchJob", "IngestService/IngestDocuments"
    assert value(registry, "mambasearch_requests_total", method=watched, code="CANCELLED") == 1
    assert value(registry, "mambasearch_requests_total", method=ingested, code="OK") == 1
    assert value(registry, "mambasearch_request_duration_seconds_count", method=ingested) is None


async def test_a_call_keeps_its_name_or_is_told_it() -> None:
    async with serving(CallObserver(CallMetrics(CollectorRegistry()))) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        request = search_pb2.SearchRequest(query="x")
        named = stub.Search(request, metadata=(("x-request-id", "abc"),))
        assert (await named).query_tokens == 3
        assert "x-request-id" not in (await named.initial_metadata())
        nameless = stub.Search(request)
        assert (await nameless).query_tokens == 16
        assert len((await nameless.initial_metadata())["x-request-id"]) == 16
        refused = stub.Search(search_pb2.SearchRequest(query="bad"))
        with pytest.raises(grpc.aio.AioRpcError):
            await refused
        assert len((await refused.initial_metadata())["x-request-id"]) == 16


async def test_a_clients_span_a_servers_and_what_it_did_are_one_trace() -> None:
    client, server = Recorder(), Recorder()
    async with serving(CallObserver(CallMetrics(CollectorRegistry()), server.origin)) as channel:
        with within(client.origin), span("app"):
            await ask(TracedChannel(channel), "good", timeout=5)
        with within(client.origin), pytest.raises(grpc.aio.AioRpcError):
            await ask(TracedChannel(channel), "broken", timeout=5)
        await asyncio.sleep(0.05)
    assert client.told() == [
        "mambasearch.v1.SearchService/Search < app",
        "app",
        "mambasearch.v1.SearchService/Search (INTERNAL)",
    ]
    assert server.told() == [
        "work < SearchService/Search",
        "SearchService/Search",
        "SearchService/Search (INTERNAL)",
    ]
    assert server.ended[1].accepted == client.ended[0].headers()
    assert server.ended[1].attributes["rpc.response.status_code"] == "OK"


async def test_a_trace_passes_a_server_that_does_not_trace() -> None:
    async with serving(CallObserver(CallMetrics(CollectorRegistry()))) as inner:

        class Passing(search_pb2_grpc.SearchServiceServicer):
            async def Search(self, request: Any, context: Any) -> Any:
                seen.append(current_call())
                return await ask(TracedChannel(inner), "good")

        seen: list[Any] = []
        server = grpc.aio.server(interceptors=[CallInterceptor(CallObserver(CallMetrics(CollectorRegistry())))])
        search_pb2_grpc.add_SearchServiceServicer_to_server(Passing(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = await ask(channel, "x", metadata=(("x-request-id", "abcde"), ("traceparent", PARENT)))
        await server.stop(None)
    assert answer.query_tokens == len("abcde")
    assert seen[0].trace_id == PARENT[3:35]


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [getattr(record, FIELDS) for record in caplog.records if hasattr(record, FIELDS)]


@pytest.mark.parametrize(
    ("access_log", "logged"),
    [("none", []), ("errors", ["INTERNAL"]), ("all", ["OK", "INVALID_ARGUMENT", "INTERNAL"])],
)
async def test_the_log_has_a_line_of_the_calls_that_settings_name(
    access_log: Any, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    observer = CallObserver(CallMetrics(CollectorRegistry()), access_log=access_log)
    async with serving(observer) as channel:
        await ask(channel, "good")
        for query in ("bad", "broken"):
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(channel, query)
    assert [line["code"] for line in lines(caplog)] == logged
    for line in lines(caplog):
        assert line["method"] == "SearchService/Search"
        assert 0 <= line["duration_s"] < 5
        assert line["encode_ms"] == 1.5
        assert "query" not in json.dumps(line)


async def test_a_slow_call_has_a_line_with_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    observer = CallObserver(CallMetrics(CollectorRegistry()), access_log="none", slow_call_s=1e-6)
    async with serving(observer) as channel:
        await ask(channel, SECRET)
    assert "SearchService/Search OK in " in caplog.text
    assert "(slow), encode_ms 1.5" in caplog.text
    assert SECRET not in caplog.text


def test_a_second_has_so_many_lines_and_the_next_tells_of_the_rest(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("services.observing.calls.time.monotonic", lambda: now[0])
    observer = CallObserver(CallMetrics(CollectorRegistry()))

    def fail() -> None:
        with observer.answering("SearchService/Search", ()) as answering:
            answering.code = "UNAVAILABLE"

    for _ in range(LINES_PER_SECOND_MAX + 7):
        fail()
    assert len(lines(caplog)) == LINES_PER_SECOND_MAX
    now[0] += 1
    fail()
    assert len(lines(caplog)) == LINES_PER_SECOND_MAX + 1
    assert "7 more calls in one second have no line here" in caplog.text
