"""Two clients as good as one another: gRPC to our search service, HTTP with kept connections to the plain one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mambasearch.v1 import search_pb2, search_pb2_grpc

from tests.benchmarks.load.generator import REFUSED, Answer, Ask

TIMEOUT_S = 30.0


@asynccontextmanager
async def grpc_client(
    target: str, queries: Sequence[str], mode: search_pb2.SearchMode, top_k: int
) -> AsyncIterator[Ask]:
    """Open one channel; what is given asks the next query over it."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)

        async def ask(number: int) -> Answer:
            request = search_pb2.SearchRequest(query=queries[number % len(queries)], mode=mode, top_k=top_k)
            try:
                response = await stub.Search(request, timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                return refusal_or_error(error)
            if len(response.hits) != top_k or not response.hits[0].text:
                return Answer("WRONG_ANSWER")
            timings = response.timings
            return Answer(
                stages_ms={
                    field.name.removesuffix("_ms"): value
                    for field, value in timings.ListFields()
                    if isinstance(value, float)
                }
            )

        yield ask


def refusal_or_error(error: grpc.aio.AioRpcError) -> Answer:
    """Tell a refusal with the time after which to try again from any other error."""
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        for detail in status.details if status else ():
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(retry):
                return Answer(REFUSED, retry.retry_delay.ToMilliseconds() / 1000)
    return Answer(error.code().name)


@asynccontextmanager
async def http_client(address: str, queries: Sequence[str], top_k: int, clients: int) -> AsyncIterator[Ask]:
    """Open a session that keeps a connection for each client."""
    connector = aiohttp.TCPConnector(limit=clients, keepalive_timeout=600)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(number: int) -> Answer:
            parameters = {"query": queries[number % len(queries)], "top_k": top_k}
            try:
                async with session.get(address, params=parameters) as response:
                    body = await response.read()
                    if response.status != 200:
                        return Answer(f"HTTP_{response.status}")
            except (TimeoutError, aiohttp.ClientError) as error:
                return Answer(type(error).__name__)
            hits = json.loads(body)["hits"]
            return Answer() if len(hits) == top_k and hits[0]["text"] else Answer("WRONG_ANSWER")

        yield ask
