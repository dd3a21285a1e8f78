"""How a server begins and ends: health on its own port, reflection by setting, a graceful end, the owner's token."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from mambasearch.v1 import index_pb2, index_pb2_grpc, search_pb2, search_pb2_grpc

from encoder.errors import InvalidInput, Unauthenticated
from ingest.index import wire
from ingest.index.remote import RemoteIndex
from services.cli.calling import call_error, credential_of, open_channel
from services.door.door import service_door
from services.door.owner_token import FILE_NAME, read_owner_token, write_owner_token
from services.grpc_server import NOT_SERVING, SERVING, GrpcServer, Serving
from services.index_owner import SERVICE as INDEX_SERVICE
from services.index_owner import IndexOwner
from services.machine.preflight import parts_of
from services.setting_groups import CallerSettings
from services.settings import UpSettings
from tests.indexes import DIMENSION, FINGERPRINT
from tests.processes import free_port
from tests.security.certificates import make_authority

SERVICE = "mambasearch.v1.SearchService"
TOKEN = "t" * 20


class Slow(search_pb2_grpc.SearchServiceServicer):
    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        await asyncio.sleep(float(request.query))
        return search_pb2.SearchResponse(query_tokens=1)


def make_server(serving: Serving) -> GrpcServer:
    return GrpcServer(
        SERVICE,
        lambda server: search_pb2_grpc.add_SearchServiceServicer_to_server(Slow(), server),
        message_bytes_max=4096,
        calls_max=16,
        serving=serving,
    )


async def health(target: str) -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5)).status)


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_server_that_stops_says_so_first_and_lets_calls_end() -> None:
    server = make_server(Serving(drain_delay_s=0.5, drain_timeout_s=5))
    await server.start("127.0.0.1", 0)
    await server.set_serving(True)
    target = f"127.0.0.1:{server.port}"
    async with grpc.aio.insecure_channel(target) as channel:
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        running = asyncio.ensure_future(code_of(search(search_pb2.SearchRequest(query="1.5"))))
        await asyncio.sleep(0.2)
        assert await health(target) == SERVING
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0.1)
        assert await health(target) == NOT_SERVING
        await server.set_serving(True)  # whoever watches the backends learns of the end later
        assert await health(target) == NOT_SERVING
        assert await code_of(search(search_pb2.SearchRequest(query="0"))) is grpc.StatusCode.OK
        await asyncio.sleep(0.6)
        assert await code_of(search(search_pb2.SearchRequest(query="0"), timeout=2)) is grpc.StatusCode.UNAVAILABLE
        assert await running is grpc.StatusCode.OK
        await stopping


async def test_a_call_that_does_not_end_in_time_is_cut_off() -> None:
    server = make_server(Serving(drain_timeout_s=0.2))
    await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        running = asyncio.ensure_future(code_of(search(search_pb2.SearchRequest(query="30"))))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await server.stop()
        assert time.monotonic() - started < 5
        assert await running in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_health_has_a_port_of_its_own_and_nothing_else_has() -> None:
    port = free_port()
    server = make_server(Serving(health_port=port))
    await server.start("127.0.0.1", 0)
    target = f"127.0.0.1:{port}"
    assert await health(target) == NOT_SERVING
    await server.set_serving(True)
    assert await health(target) == SERVING
    async with grpc.aio.insecure_channel(target) as channel:
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        assert await code_of(search(search_pb2.SearchRequest(query="0"))) is grpc.StatusCode.UNIMPLEMENTED
    await server.stop()


@pytest.mark.parametrize("shown", [True, False])
async def test_methods_are_told_by_setting(shown: bool) -> None:
    server = make_server(Serving(reflection=shown))
    await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        try:
            told = [answer async for answer in stub.ServerReflectionInfo(asked)]
        except grpc.aio.AioRpcError as error:
            told = []
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED  # noqa: PT017 - one of two ways
    assert bool(told) is shown
    await server.stop()


async def test_connections_are_made_anew_at_an_age() -> None:
    class Peers(search_pb2_grpc.SearchServiceServicer):
        seen: set[str] = set()  # noqa: RUF012 - of this test alone

        async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
            self.seen.add(context.peer())
            return search_pb2.SearchResponse()

    server = GrpcServer(
        SERVICE,
        lambda made: search_pb2_grpc.add_SearchServiceServicer_to_server(Peers(), made),
        message_bytes_max=4096,
        calls_max=16,
        serving=Serving(connection_age_max_s=0.3),
    )
    await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        for _ in range(15):
            await search(search_pb2.SearchRequest(query="0"), wait_for_ready=True)
            await asyncio.sleep(0.1)
    assert len(Peers.seen) >= 2
    await server.stop()


async def test_the_index_owner_asks_for_its_token(tmp_path: Path) -> None:
    owner = IndexOwner(tmp_path / "data")
    server = GrpcServer(
        INDEX_SERVICE,
        lambda made: index_pb2_grpc.add_IndexServiceServicer_to_server(owner, made),
        message_bytes_max=wire.MESSAGE_BYTES_MAX,
        calls_max=16,
        door=service_door(TOKEN),
    )
    await server.start("127.0.0.1", 0)
    target = f"127.0.0.1:{server.port}"
    index = await RemoteIndex.connect(target, dimension=DIMENSION, fingerprint=FINGERPRINT, token=TOKEN)
    assert (await index.stats()).chunk_count == 0
    await index.close()
    for wrong in (None, "wrong", TOKEN + "t"):
        with pytest.raises(Unauthenticated):
            await RemoteIndex.connect(target, dimension=DIMENSION, fingerprint=FINGERPRINT, token=wrong)
    async with grpc.aio.insecure_channel(target) as channel:
        for method in index_pb2.DESCRIPTOR.services_by_name["IndexService"].methods:
            call = channel.unary_unary(f"/{INDEX_SERVICE}/{method.name}")
            assert await code_of(call(b"")) is grpc.StatusCode.UNAUTHENTICATED, method.name
    await server.stop()
    await owner.close()


def test_the_owners_token_is_its_own(tmp_path: Path) -> None:
    assert read_owner_token(tmp_path / "data") is None
    for token in (TOKEN, TOKEN[::-1]):
        write_owner_token(tmp_path / "data", token)
        assert read_owner_token(tmp_path / "data") == token
    assert (tmp_path / "data" / FILE_NAME).stat().st_mode & 0o077 == 0


def test_up_makes_a_token_and_looks_at_health_in_plain_text(tmp_path: Path) -> None:
    plain, environment = parts_of(UpSettings.load({"data_dir": tmp_path}), tmp_path / "ray")
    assert len(environment["MAMBASEARCH_INDEX_TOKEN"]) > 30
    assert [part.health_target for part in plain] == [None] * 4
    given = {"data_dir": tmp_path, "tls_cert": tmp_path / "c", "tls_key": tmp_path / "k", "index_token": TOKEN}
    parts, environment = parts_of(UpSettings.load(given), tmp_path / "ray")
    assert environment["MAMBASEARCH_INDEX_TOKEN"] == TOKEN
    found = {part.name: part.health_target for part in parts}
    assert found["search"] == f"127.0.0.1:{environment['MAMBASEARCH_SEARCH_HEALTH_PORT']}"
    assert found["ingest"] == f"127.0.0.1:{environment['MAMBASEARCH_INGEST_HEALTH_PORT']}"
    assert found["index"] is None


async def test_a_key_goes_nowhere_unencrypted(tmp_path: Path) -> None:
    key_file = tmp_path / "app.key"
    key_file.write_text("ms_key\n")
    caller = CallerSettings.load({"api_key_file": key_file})
    assert credential_of(caller) == "ms_key"
    with pytest.raises(InvalidInput, match=r"api_key would go to search\.example:443 unencrypted"):
        async with open_channel("search.example:443", caller):
            pass
    authority = make_authority(tmp_path)
    for given in ({"tls_ca": authority.path}, {"use_tls": True}, {"allow_insecure": True}):
        async with open_channel("search.example:443", CallerSettings.load({"api_key_file": key_file, **given})):
            pass
    async with open_channel("127.0.0.1:1", caller):
        pass


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"api_key": "a b"}, "api_key is not a key or token"),
        ({"api_key": "é"}, "api_key is not a key or token"),
        ({"api_key": "x" * 9000}, "api_key is not a key or token"),
        ({"api_key_file": Path("/none")}, "api_key_file /none cannot be read"),
        ({"tls_ca": Path("/none")}, "tls_ca /none cannot be read"),
        ({"api_key": "x", "api_key_file": Path("/x")}, "exclude each other"),
        ({"tls_client_cert": Path("/x")}, "belong together"),
    ],
)
async def test_what_a_caller_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        async with open_channel("127.0.0.1:1", CallerSettings.load(given)):
            pass


async def test_a_connection_that_tls_refuses_is_told_apart_from_none(tmp_path: Path) -> None:
    server = make_server(Serving())
    await server.start("127.0.0.1", 0)
    target = f"127.0.0.1:{server.port}"
    caller = CallerSettings.load({"tls_ca": make_authority(tmp_path).path})
    async with open_channel(target, caller) as channel:
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        told = ""
        with contextlib.suppress(grpc.aio.AioRpcError):
            try:
                await search(search_pb2.SearchRequest(query="0"), timeout=10)
            except grpc.aio.AioRpcError as error:
                told = str(call_error(error, "search service", target))
                raise
    assert "cannot be spoken to over TLS" in told
    await server.stop()
