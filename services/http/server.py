"""The HTTP server: uvicorn on the event loop that is running, with our connections, without its signals and logs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from encoder.errors import InUse
from services.http.connections import LimitedConnection

# What running requests get after SIGTERM before they are cut off; as for gRPC.
DRAIN_S = 5
_KEEP_ALIVE_S = 75
_HANDSHAKE_TIMEOUT_S = 10.0
_BACKLOG = 256


class _Server(uvicorn.Server):
    """Listens itself: uvicorn would let a TLS handshake take a minute, and take the process's signals."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._listener = listener
        self._tls = tls
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        del sockets

        def connect() -> LimitedConnection:
            return LimitedConnection(self.config, self.server_state, {})

        listening = await asyncio.get_running_loop().create_server(
            connect,
            sock=self._listener,
            ssl=self._tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if self._tls else None,
        )
        self.servers = [listening]
        self.started = True
        self.listens.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve ``app`` as long as the block lasts, and then let running requests end; gives the port (0 takes a free one).

    :class:`InUse` where another process has the port.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = _Server(config, listener, tls)
    serving = asyncio.ensure_future(server.serve())
    listens = asyncio.ensure_future(server.listens.wait())
    try:
        await asyncio.wait({serving, listens}, return_when=asyncio.FIRST_COMPLETED)
        yield listener.getsockname()[1]
    finally:
        listens.cancel()
        server.should_exit = True
        await serving


def _listen(host: str, port: int) -> socket.socket:
    name = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        message = f"http_port {port} on {host} cannot be had ({error.strerror}); stop what uses it or choose another."
        raise InUse(message) from None
    listener.setblocking(False)  # noqa: FBT003 - the standard library's
    return listener
