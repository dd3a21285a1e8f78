"""One of our gRPC servers: door, limits, statuses, health, reflection, and a graceful end. Knows no service of ours."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from encoder.errors import InUse
from services.door.door import Door, open_door
from services.door.interceptor import DoorInterceptor
from services.door.settings import DoorSettings
from services.status import StatusInterceptor

if TYPE_CHECKING:
    from services.door.certificates import ServerCertificates

KEEPALIVE_MS = 30_000
HANDSHAKE_MS = 10_000
# Calls that have come and are not begun yet. gRPC ends those beyond with CANCELLED, in which no client can see that it
# is to come again (from 1000 of them on, unless told otherwise); so many are begun within two seconds, and take 50 MiB.
CALLS_NOT_BEGUN_MAX = 4096
# A token has 8 KiB at most.
METADATA_BYTES_MAX = 16 * 1024

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """How a server meets its clients."""

    certificates: ServerCertificates | None = None  # None: no encryption
    reflection: bool = True
    connection_age_max_s: float = 0.0  # 0: without end
    drain_delay_s: float = 0.0  # unhealthy, and taking calls
    drain_timeout_s: float = 5.0  # for calls under way
    health_port: int = 0  # where health alone is told, without encryption; 0: nowhere


def serving_as(settings: DoorSettings, health_port: int) -> Serving:
    """Say how a server meets its clients by settings; :class:`InvalidInput` for a certificate that is no good."""
    certificates = None
    if settings.tls_cert is not None:
        # It and cryptography take a fifth of a second to import: not in a process that does not encrypt.
        from services.door.certificates import CertificateFiles, ServerCertificates

        assert settings.tls_key is not None
        files = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        certificates = ServerCertificates(files)
    return Serving(
        certificates=certificates,
        reflection=settings.reflection,
        connection_age_max_s=settings.connection_age_max_s,
        drain_delay_s=settings.drain_delay_s,
        drain_timeout_s=settings.drain_timeout_s,
        health_port=health_port,
    )


class GrpcServer:
    """A grpc.aio server for one service; not serving, as far as health tells, until :meth:`set_serving`.

    Without a door it lets everybody in: for what only this machine reaches.
    """

    def __init__(
        self,
        service: str,
        register: Callable[[grpc.aio.Server], None],
        *,
        message_bytes_max: int,
        calls_max: int,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        door: Door | None = None,
        serving: Serving | None = None,
    ) -> None:
        """``calls_max`` is of each connection; ``interceptors`` stand outermost, and see each call's status."""
        self._service = service
        self._serving = serving or Serving()
        self._door = door or open_door()
        certificates = self._serving.certificates
        guard = DoorInterceptor(self._door, certificates=certificates is not None and certificates.needs_clients)
        self._server = grpc.aio.server(
            interceptors=[*interceptors, StatusInterceptor(), guard],
            options=[
                ("grpc.max_receive_message_length", message_bytes_max),
                ("grpc.max_send_message_length", message_bytes_max),
                *_connection_options(calls_max, self._serving.connection_age_max_s),
            ],
        )
        register(self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self._serving.reflection:
            reflection.enable_server_reflection(self._names(), self._server)
        self._health_server: grpc.aio.Server | None = None
        self.port = 0
        self.is_serving = False

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. :class:`InUse` where another process has the port."""
        certificates = self._serving.certificates
        self.port = _bind(self._server, host, port, certificates.grpc_credentials() if certificates else None)
        if self._serving.health_port:
            # Probes of Kubernetes speak no TLS. Here they find health, and nothing else.
            self._health_server = grpc.aio.server(options=_connection_options(16, 0.0))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)
            _bind(self._health_server, host, self._serving.health_port, None)
        await self.set_serving(False)
        for server in self._servers():
            await server.start()

    async def set_serving(self, serving: bool) -> None:  # noqa: FBT001 - a callback of one argument
        """Tell health checks whether this server can do its work."""
        self.is_serving = serving
        status = SERVING if serving else NOT_SERVING
        for name in ("", self._service):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Say that it is not serving; a while later refuse new calls; give running ones a while; end."""
        self.is_serving = False
        await self._health.enter_graceful_shutdown()
        if self._serving.drain_delay_s:
            logger.info("stopping: takes calls for %g s more", self._serving.drain_delay_s)
            await asyncio.sleep(self._serving.drain_delay_s)
        await asyncio.gather(*(server.stop(self._serving.drain_timeout_s) for server in self._servers()))
        await asyncio.to_thread(self._door.close)

    def _servers(self) -> Sequence[grpc.aio.Server]:
        return [self._server, self._health_server] if self._health_server else [self._server]

    def _names(self) -> Sequence[str]:
        return (self._service, health.SERVICE_NAME, reflection.SERVICE_NAME)


def _connection_options(calls_max: int, age_max_s: float) -> list[tuple[str, int]]:
    options = [
        # A client waits with what is above it, until one of its calls has ended.
        ("grpc.max_concurrent_streams", calls_max),
        # Or the calls that have just ended count, too: a client with as many under way as it may have would be refused
        # the next one with UNAVAILABLE.
        ("grpc.http.overload_protection", 0),
        ("grpc.server.max_pending_requests", CALLS_NOT_BEGUN_MAX),
        ("grpc.server.max_pending_requests_hard_limit", CALLS_NOT_BEGUN_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        # Two servers on one port would each get a part of the calls.
        ("grpc.so_reuseport", 0),
        # A client that is gone without a word is noticed, and gives its place up.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
        # One that asks whether we are still there may do so as often as this, and is sent away after two more.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 3),
        ("grpc.http2.max_ping_strikes", 2),
    ]
    if age_max_s:
        options.append(("grpc.max_connection_age_ms", round(age_max_s * 1000)))
    return options


def _bind(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    address = f"{host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise InUse(
            f"Port {port} on {host} is in use, or the address is not this machine's; choose another."
        ) from error


def stop_signal() -> asyncio.Event:
    """Make an event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event
