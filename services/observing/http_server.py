"""A small HTTP server for Prometheus: ``GET /metrics`` of one registry, in threads of its own. Knows no metric.

A process whose event loop is stuck still tells how it is. On a TCP port, or on a Unix socket for another process of the
machine.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from prometheus_client import exposition
from prometheus_client.registry import Collector

from encoder.errors import InUse

# Those who ask at once; one more is hung up on. A scrape takes milliseconds.
REQUESTS_MAX = 8
# A client that is silent for so long has its place taken away.
TIMEOUT_S = 5.0


class MetricsServer:
    """Answers until :meth:`close`. Give it a port (0 takes a free one), or the path of a socket."""

    def __init__(self, registry: Collector, host: str, port: int) -> None:
        """:class:`InUse` where another process has the port."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server: _Server = _Server(registry, family, (host.strip("[]"), port))
        except OSError as error:
            raise InUse(
                f"Port {port} on {host}, for metrics, cannot be had ({error.strerror}); stop what uses it or choose "
                "another."
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = _serving(self._server)

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class SocketServer:
    """The same on a Unix socket, which is replaced where one was left over."""

    def __init__(self, registry: Collector, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        self._server = _Server(registry, socket.AF_UNIX, str(path))
        self._thread = _serving(self._server)

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._path.unlink(missing_ok=True)


def _serving(server: _Server) -> threading.Thread:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="metrics", daemon=True)
    thread.start()
    return thread


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a client that is silent holds up no end

    def __init__(self, registry: Collector, family: int, address: Any) -> None:  # noqa: ANN401 - of the family's type
        self.registry = registry
        self.address_family = family
        self._places = threading.BoundedSemaphore(REQUESTS_MAX)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's types
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's types
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's types
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "Only /metrics is here")
            return
        encode, content_type = exposition.choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """Name the client without asking a name server; a Unix socket's has no address."""
        return "client"

    def log_message(self, *_: object) -> None:
        """Log no scrape."""
