"""Connections of HTTP clients, each within limits: uvicorn's protocol, which by itself waits for a request for ever."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

CONNECTIONS_MAX = 1024
HEAD_BYTES_MAX = 64 * 1024
# How long a client may take to send the head of a request, and to take anything at all of an answer.
HEAD_TIMEOUT_S = 10.0
TAKE_TIMEOUT_S = 20.0
_LOOK_PERIOD_S = 2.0

PEER_CERTIFICATE = "peer_certificate"

logger = logging.getLogger(__name__)


class LimitedConnection(HttpToolsProtocol):
    """One connection. Too many, too long a head, or too slow a client: it is closed."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._head_since: float | None = None
        self._left = 0  # bytes of answers that the client has not taken yet
        self._left_since: float | None = None
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, where there is room for one more."""
        super().connection_made(transport)
        ssl_object = transport.get_extra_info("ssl_object")
        self.app_state = {PEER_CERTIFICATE: ssl_object.getpeercert() if ssl_object else None}
        if len(self.connections) > CONNECTIONS_MAX:
            logger.warning("%d connections are open, which is the limit: one more was closed", CONNECTIONS_MAX)
            transport.abort()
            return
        self._head_since = self.loop.time()
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        if self._look:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; refuse a head that does not end."""
        super().data_received(data)
        if self._head_since is None:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        """Note when a request begins."""
        if self._head_since is None:
            self._head_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that its head is whole."""
        self._head_since = None
        super().on_headers_complete()

    def _look_later(self) -> None:
        self._look = self.loop.call_later(_LOOK_PERIOD_S, self._close_if_stuck)

    def _close_if_stuck(self) -> None:
        now, left = self.loop.time(), self.transport.get_write_buffer_size()
        if self._left_since is None or not left or left < self._left:
            self._left_since = now
        self._left = left
        if now - self._left_since >= TAKE_TIMEOUT_S:
            self.transport.abort()
            return
        if self._head_since is not None and now - self._head_since >= HEAD_TIMEOUT_S:
            self.transport.close()
        self._look_later()
