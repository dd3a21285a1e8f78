"""What the door refuses is counted, and what it notes has the id that the call's log and traces have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from mambasearch.v1 import search_pb2, search_pb2_grpc
from prometheus_client import CollectorRegistry

from services.door.door import make_door
from services.door.settings import DoorSettings
from services.grpc_server import GrpcServer
from services.observing.call_metrics import CallMetrics
from services.observing.calls import CallObserver
from services.observing.interceptor import CallInterceptor


class Searching(search_pb2_grpc.SearchServiceServicer):
    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        if request.query == "wait":
            await self.gate.wait()
        return search_pb2.SearchResponse(query_tokens=5)


@asynccontextmanager
async def serving(
    registry: CollectorRegistry, settings: DoorSettings, places: int = 16
) -> AsyncIterator[tuple[Any, Searching]]:
    observer, servicer = CallObserver(CallMetrics(registry)), Searching()
    server = GrpcServer(
        "mambasearch.v1.SearchService",
        lambda made: search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, made),
        message_bytes_max=4096,
        calls_max=16,
        door=make_door(settings, "search", places, refused=observer.metrics.refused),
        interceptors=[CallInterceptor(observer)],
    )
    await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield search_pb2_grpc.SearchServiceStub(channel).Search, servicer
    servicer.gate.set()
    await server.stop()


def refusals(registry: CollectorRegistry) -> dict[str, float | None]:
    kinds = ("requests", "tokens", "concurrency")
    return {kind: registry.get_sample_value("mambasearch_quota_refusals_total", {"quota": kind}) for kind in kinds}


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (DoorSettings(tenant_requests_per_s=0.001, tenant_requests_burst=1), "requests"),
        (DoorSettings(tenant_tokens_per_s=0.001, tenant_tokens_burst=1), "tokens"),
    ],
)
async def test_a_refusal_is_counted_by_its_quota(settings: DoorSettings, kind: str) -> None:
    registry = CollectorRegistry()
    async with serving(registry, settings) as (search, _):
        await search(search_pb2.SearchRequest(query="one"))
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await search(search_pb2.SearchRequest(query="two"))
            assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusals(registry) == {"requests": None, "tokens": None, "concurrency": None} | {kind: 2}


@pytest.mark.parametrize("share", [0.5, 1.0])
async def test_a_refusal_for_want_of_a_place_is_counted(share: float) -> None:
    registry = CollectorRegistry()
    async with serving(registry, DoorSettings(tenant_share=share), places=2) as (search, servicer):
        waiting = [asyncio.ensure_future(search(search_pb2.SearchRequest(query="wait"))) for _ in range(3)]
        while not any(call.done() for call in waiting):  # noqa: ASYNC110 - the servers' count
            await asyncio.sleep(0.01)
        servicer.gate.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    refused = sum(isinstance(answer, grpc.aio.AioRpcError) for answer in answers)
    assert refused >= 1
    assert refusals(registry) == {"requests": None, "tokens": None, "concurrency": refused}


async def test_the_audit_log_has_the_id_that_the_client_is_told(tmp_path: Path) -> None:
    async with serving(CollectorRegistry(), DoorSettings(audit_log=str(tmp_path))) as (search, _):
        call = search(search_pb2.SearchRequest(query="one"))
        await call
        told = dict(await call.initial_metadata())["x-request-id"]
        await search(search_pb2.SearchRequest(query="two"), metadata=(("x-request-id", "mine:1"),))
    noted = [json.loads(line)["request_id"] for line in (tmp_path / "audit-search.jsonl").read_text().splitlines()]
    assert noted == [told, "mine:1"]
