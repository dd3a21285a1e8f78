"""Clients that are slow, silent, endless or gone, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

import pytest

from services.http import connections
from tests.http.serving import Served

SEARCH = json.dumps({"query": "apples"}).encode()
HEAD = b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture
async def port(http: Served, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(connections, "TAKE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(connections, "_LOOK_PERIOD_S", 0.05)
    async with http.socket() as listening:
        yield listening


async def said(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send parts, with pauses between, while the service listens; give what it says until it hangs up, 5 s at most."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()

    async def read() -> None:
        while part := await reader.read(1 << 16):
            answer.extend(part)

    answering = asyncio.ensure_future(read())
    try:
        for part in parts:
            writer.write(part)
            await asyncio.wait({answering}, timeout=pause_s)
            if answering.done():
                break
        await asyncio.wait_for(answering, 5)
    except ConnectionError:
        pass  # what was said before stands: a part that comes after the end is answered with a reset
    finally:
        writer.close()
    return bytes(answer)


async def still_serves(port: int) -> bool:
    head = b"%sconnection: close\r\ncontent-length: %d\r\n\r\n" % (HEAD, len(SEARCH))
    return (await said(port, head + SEARCH)).startswith(b"HTTP/1.1 200 ")


async def test_a_body_that_does_not_come_is_waited_for_only_so_long(port: int) -> None:
    answer = await said(port, HEAD + b"content-length: 100\r\n\r\n", b'{"query"')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not arrive within 0.5 s (http_body_timeout_s)." in answer
    assert await still_serves(port)


async def test_a_body_that_drips_is_cut_off_all_the_same(port: int) -> None:
    dripping = [b"a"] * 40
    answer = await said(port, HEAD + b"content-length: 100\r\n\r\n", *dripping, pause_s=0.02)
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_of_unknown_length_has_the_same_limit(port: int) -> None:
    chunks = [b"4000\r\n" + b"a" * 0x4000 + b"\r\n"] * 5
    answer = await said(port, HEAD + b"transfer-encoding: chunked\r\n\r\n", *chunks, pause_s=0.01)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert await still_serves(port)


async def test_a_body_in_chunks_is_read(port: int) -> None:
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SEARCH), SEARCH)
    answer = await said(port, HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n", chunked)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nhost: localhost\r\n"])
async def test_a_head_that_does_not_end_is_cut_off(port: int, sent: bytes) -> None:
    assert await said(port, sent) == b""
    assert await still_serves(port)


async def test_a_second_request_has_to_come_whole_too(port: int) -> None:
    first = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    answer = await said(port, first, b"GET /hea", pause_s=0.05)
    assert answer.count(b"HTTP/1.1 200 ") == 1


async def test_a_head_that_is_too_long_is_refused(port: int) -> None:
    lines = [b"x-%d: %s\r\n" % (number, b"a" * 4000) for number in range(40)]
    answer = await said(port, b"GET / HTTP/1.1\r\nhost: localhost\r\n", *lines)
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer
    assert await still_serves(port)


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_what_is_no_http_is_refused(port: int, sent: bytes) -> None:
    answer = await said(port, sent)
    assert answer.startswith(b"HTTP/1.1 400 ") or not answer
    assert await still_serves(port)


async def test_more_connections_than_there_is_room_for_are_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 2)
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 5)
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert not await still_serves(port)
    for _, writer in held:
        writer.close()
    await asyncio.sleep(0.05)
    assert await still_serves(port)


async def test_who_hangs_up_is_not_searched_for(http: Served, port: int) -> None:
    http.search.delay_s = 0.3
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + b"content-length: %d\r\n\r\n%s" % (len(SEARCH), SEARCH))
    await writer.drain()
    while not http.search.asked:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    writer.close()
    await asyncio.sleep(0.5)
    assert http.search.finished == 0


async def test_who_takes_no_answer_is_given_up(http: Served, port: int) -> None:
    """An answer of some megabytes fills what the kernel keeps; then nothing goes out any more."""
    title, chunks = http.search.documents["orchard"]
    chunks[1].text = "a" * 30_000_000
    http.search.documents["orchard"] = title, chunks
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, b"GET /v1/documents/orchard/chunks HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await asyncio.sleep(2)
        got = 0
        with contextlib.suppress(ConnectionError):
            while part := await loop.sock_recv(client, 2**20):
                got += len(part)
    assert 0 < got < 30_000_000
    assert await still_serves(port)
