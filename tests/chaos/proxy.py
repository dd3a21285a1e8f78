"""A TCP connection that can be cut: a proxy that passes bytes on, drops connections, or lets them stall."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

_READ_BYTES = 65_536


class Proxy:
    """Listens on a port of loopback and passes everything on to another one, unless told otherwise."""

    def __init__(self, port: int, target_port: int) -> None:
        self._port = port
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._passing = asyncio.Event()
        self._passing.set()
        self._dropping = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    def drop(self) -> None:
        """Break all connections off, and each new one at once."""
        self._dropping = True
        for writer in list(self._writers):
            _reset(writer)

    def stall(self) -> None:
        """Keep connections, and let nothing through."""
        self._passing.clear()

    def restore(self) -> None:
        """Pass everything on again."""
        self._dropping = False
        self._passing.set()

    async def close(self) -> None:
        """Stop listening; connections end."""
        self.restore()
        self.drop()
        if self._server:
            self._server.close()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._dropping:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        # What one side ends the other one hears of; half-open connections are none of gRPC's.
        writer.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection as a machine does that knows nothing of it: without a farewell."""
    at_once = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    writer.transport.abort()
