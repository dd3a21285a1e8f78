"""Replicas of a real Ray Serve: their metrics on one port, their part of a client's trace."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from mambasearch.v1 import encoder_pb2, encoder_pb2_grpc

from tests.observing.collector import Collector, collecting
from tests.observing.scraping import scrape
from tests.processes import free_port

ROOT = Path(__file__).parents[2]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@asynccontextmanager
async def serving(collector: Collector) -> AsyncIterator[tuple[int, int]]:
    """Two applications with a fake encoder each; gives the ports of the service and of its metrics."""
    port, metrics_port = free_port(), free_port()
    environment = os.environ | {  # noqa: TID251 - for a child process
        "MAMBASEARCH_ENCODER_PORT": str(port),
        "MAMBASEARCH_ENCODER_METRICS_PORT": str(metrics_port),
        "MAMBASEARCH_OTLP_ENDPOINT": f"http://{collector.target}",
        "MAMBASEARCH_RAY_DIR": f"/tmp/mamba-test-{port}",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fake_encoder_service", env=environment, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout
        async with asyncio.timeout(200):
            while (line := await process.stdout.readline()) != b"ready\n":
                assert line, "the service ended"
        yield port, metrics_port
    finally:
        process.terminate()
        await process.wait()


async def test_replicas_tell_metrics_on_one_port_and_go_on_with_a_clients_trace() -> None:
    async with collecting() as collector:
        async with serving(collector) as (port, metrics_port):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = encoder_pb2_grpc.EncoderServiceStub(channel)
                metadata = (("application", "query-encoder"), ("traceparent", f"00-{TRACE}-{PARENT}-01"))
                request = encoder_pb2.EncodeQueriesRequest(queries=["some words"])
                await stub.EncodeQueries(request, metadata=metadata, timeout=30)
            found = await asyncio.to_thread(scrape, metrics_port)
        names = {span.name: span for span in collector.trace(TRACE)}
    for application in ("query-encoder", "passage-encoder"):
        assert found[f'mambasearch_serving{{replica="{application}-0"}}'] == 1
    counted = 'mambasearch_requests_total{code="OK",method="EncoderService/EncodeQueries",replica="query-encoder-0"}'
    assert found[counted] == 1
    assert names["EncoderService/EncodeQueries"].parent_id == PARENT
    assert names["encoder batch"].parent_id == names["EncoderService/EncodeQueries"].span_id
    assert names["encoder queue"].process == "query-encoder"
