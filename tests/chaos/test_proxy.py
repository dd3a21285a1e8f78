"""The connection that the chaos test cuts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.chaos.proxy import Proxy
from tests.processes import free_port


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[Proxy, int]]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    port = free_port()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    made = Proxy(port, server.sockets[0].getsockname()[1])
    await made.start()
    yield made, port
    await made.close()
    server.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait_for(asyncio.gather(*rest, return_exceptions=True), 5)
    await asyncio.sleep(0.05)  # sockets are closed a turn of the loop later


async def answer_of(port: int, timeout_s: float = 1.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"hello")
        return await asyncio.wait_for(reader.read(100), timeout_s)
    finally:
        writer.close()


async def test_it_passes_drops_stalls_and_passes_again(proxy: tuple[Proxy, int]) -> None:
    link, port = proxy
    assert await answer_of(port) == b"hello"
    link.drop()
    with pytest.raises(ConnectionResetError):
        await answer_of(port)
    link.restore()
    assert await answer_of(port) == b"hello"
    link.stall()
    with pytest.raises(TimeoutError):
        await answer_of(port, 0.2)
    link.restore()
    assert await answer_of(port) == b"hello"


async def test_what_stalled_arrives_later_and_what_is_dropped_never(proxy: tuple[Proxy, int]) -> None:
    link, port = proxy
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    link.stall()
    writer.write(b"late")
    await asyncio.sleep(0.05)
    link.restore()
    assert await asyncio.wait_for(reader.read(100), 1) == b"late"
    link.drop()
    with pytest.raises(ConnectionResetError):
        await reader.read(100)
    writer.close()
