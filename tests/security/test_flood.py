"""A flood from one tenant: refused with a time to come again, and the others are served."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mambasearch.v1 import ingest_pb2, search_pb2, search_pb2_grpc

from services.door.audit import AuditLog
from services.door.authenticating import Authenticator
from services.door.door import Door
from services.door.key_ring import KeyRing, create_key
from services.door.keys import KeyWishes
from services.door.places import Places
from services.door.principal import NO_LIMITS, Limits, Role
from services.door.quotas import Quotas
from services.grpc_server import GrpcServer
from tests.security.resets import open_and_cancel
from tests.security.secured import secured

QUERY = search_pb2.SearchRequest(query="words", mode=search_pb2.SEARCH_MODE_SPARSE)


class SlowSearch(search_pb2_grpc.SearchServiceServicer):
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.under_way = 0

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.under_way += 1
        await self.gate.wait()
        return search_pb2.SearchResponse(query_tokens=3)


@asynccontextmanager
async def slow_search(
    folder: Path, tenants: Sequence[str], *, places: int, limits: Limits = NO_LIMITS, call_timeout_s: float = 60
) -> AsyncIterator[tuple[SlowSearch, dict[str, Any]]]:
    path = folder / "keys.json"
    keys = {
        tenant: create_key(path, KeyWishes(name=tenant, roles=(Role.SEARCH,), tenants=(tenant,)))[1]
        for tenant in tenants
    }
    door = Door(
        Authenticator(ring=KeyRing(path)),
        Quotas(limits),
        AuditLog("", ""),
        Places(places, share=0.8),
        call_timeout_s=call_timeout_s,
    )
    servicer = SlowSearch()
    server = GrpcServer(
        "mambasearch.v1.SearchService",
        lambda made: search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, made),
        message_bytes_max=65536,
        calls_max=1000,
        door=door,
    )
    await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        yield (
            servicer,
            {
                tenant: lambda key=key: search(QUERY, metadata=(("authorization", f"Bearer {key}"),), timeout=30)
                for tenant, key in keys.items()
            },
        )
        servicer.gate.set()
    await server.stop()


def refusals(answers: Sequence[Any]) -> list[grpc.aio.AioRpcError]:
    return [answer for answer in answers if isinstance(answer, BaseException)]


def retry_delay_s(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)
    info = error_details_pb2.RetryInfo()
    assert status is not None
    assert any(detail.Unpack(info) for detail in status.details)
    return float(info.retry_delay.ToMilliseconds()) / 1000


async def test_a_flood_of_one_tenant_leaves_the_others_places(tmp_path: Path) -> None:
    async with slow_search(tmp_path, ["loud", "calm", "third"], places=20) as (servicer, search):
        flood = [asyncio.ensure_future(search["loud"]()) for _ in range(200)]
        while sum(call.done() for call in flood) < 200 - 16:  # noqa: ASYNC110 - as many tasks
            await asyncio.sleep(0.01)
        # 80 % of the places, and not one more.
        assert servicer.under_way == 16
        others = [asyncio.ensure_future(search[name]()) for name in ("calm", "third", "calm")]
        while servicer.under_way < 19:  # noqa: ASYNC110 - the servicer's count
            await asyncio.sleep(0.01)
        again = await asyncio.gather(search["loud"](), return_exceptions=True)
        servicer.gate.set()
        answers = await asyncio.gather(*flood, return_exceptions=True)
        assert not refusals(await asyncio.gather(*others, return_exceptions=True))
    refused = refusals(answers) + refusals(again)
    assert len(refused) == 200 - 16 + 1
    for error in refused:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_delay_s(error) == 0.5
    assert "This tenant has 16 calls under way, which is its share of 20 now" in str(refused[0].details())


async def test_requests_beyond_the_quota_are_told_when_to_come_again(tmp_path: Path) -> None:
    limits = Limits(requests_per_s=5, requests_burst=10)
    async with slow_search(tmp_path, ["loud", "calm"], places=1000, limits=limits) as (servicer, search):
        servicer.gate.set()
        answers = await asyncio.gather(*(search["loud"]() for _ in range(60)), return_exceptions=True)
        refused = refusals(answers)
        assert 60 - len(refused) in range(10, 16)
        delays = [retry_delay_s(error) for error in refused]
        assert all(0 < delay <= 0.2 for delay in delays)
        assert "The quota of requests of this tenant is used up" in str(refused[0].details())
        assert not refusals(await asyncio.gather(search["calm"](), return_exceptions=True))
        await asyncio.sleep(0.25)
        assert not refusals(await asyncio.gather(search["loud"](), return_exceptions=True))


async def test_tokens_beyond_the_quota_are_paid_before_the_next_request(tmp_path: Path) -> None:
    # Three tokens a request, and two a second: the fourth has to wait.
    limits = Limits(tokens_per_s=2, tokens_burst=8)
    async with slow_search(tmp_path, ["loud"], places=1000, limits=limits) as (servicer, search):
        servicer.gate.set()
        for _ in range(3):
            await search["loud"]()
        (error,) = refusals(await asyncio.gather(search["loud"](), return_exceptions=True))
        assert "The quota of tokens" in str(error.details())
        assert 0 < retry_delay_s(error) <= 0.5


async def test_a_call_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    async with slow_search(tmp_path, ["one"], places=10, call_timeout_s=0.2) as (_, search):
        started = time.monotonic()
        (error,) = refusals(await asyncio.gather(search["one"](), return_exceptions=True))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 5


async def test_a_call_that_ends_gives_its_place_back(tmp_path: Path) -> None:
    async with slow_search(tmp_path, ["one"], places=2) as (servicer, search):
        for _ in range(5):
            call = search["one"]()
            while not servicer.under_way:  # noqa: ASYNC110 - the servicer's count
                await asyncio.sleep(0.01)
            call.cancel()
            servicer.under_way = 0
        await asyncio.sleep(0.1)
        servicer.gate.set()
        assert not refusals(await asyncio.gather(search["one"](), search["one"](), return_exceptions=True))


async def test_calls_that_are_cancelled_at_once_hold_little_and_not_for_long() -> None:
    servicer = SlowSearch()
    servicer.gate.set()
    server = GrpcServer(
        "mambasearch.v1.SearchService",
        lambda made: search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, made),
        message_bytes_max=65536,
        calls_max=64,
    )
    await server.start("127.0.0.1", 0)
    method = "/mambasearch.v1.SearchService/Search"
    before_mib = memory_mib()
    await asyncio.gather(*(asyncio.to_thread(open_and_cancel, server.port, method, 20_000) for _ in range(3)))
    assert memory_mib() - before_mib < 200
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel, asyncio.timeout(30):
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        while refusals(await asyncio.gather(search(QUERY), return_exceptions=True)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
    await server.stop()


def memory_mib() -> int:
    """Say how much memory this process has at the moment (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def test_a_stream_of_documents_waits_for_its_quota(tmp_path: Path) -> None:
    with secured(tmp_path) as services:
        slow = services.caller(Role.INGEST, limits=Limits(requests_per_s=20, requests_burst=1))
        started = time.monotonic()
        sent = [ingest_pb2.IngestDocumentsRequest(document_id=f"d{number}", text="words") for number in range(20)]
        outcomes = {answer.outcome for answer in slow.call("IngestDocuments", sent)}
        assert outcomes == {ingest_pb2.INGEST_OUTCOME_INGESTED}
        assert time.monotonic() - started >= 0.9


def test_a_key_has_a_quota_of_its_own(tmp_path: Path) -> None:
    with secured(tmp_path) as services:
        small = services.caller(Role.SEARCH, limits=Limits(requests_per_s=0.1, requests_burst=1))
        large = services.caller(Role.SEARCH)
        assert small.refusal("Search", QUERY) == ("OK", "")
        code, words = small.refusal("Search", QUERY)
        assert (code, "The quota of requests of this caller is used up" in words) == ("RESOURCE_EXHAUSTED", True)
        assert large.refusal("Search", QUERY) == ("OK", "")


def test_a_message_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with secured(tmp_path) as services:
        caller = services.caller(Role.SEARCH)
        code, _ = caller.refusal("Search", search_pb2.SearchRequest(query="x" * (97 * 1024 * 1024)))
        assert code == "RESOURCE_EXHAUSTED"
        assert caller.refusal("Search", QUERY) == ("OK", "")
        code, _ = caller.refusal("Search", QUERY, (("x-large", "x" * 100_000),))
        assert code in ("RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE")
        assert caller.refusal("Search", QUERY) == ("OK", "")
