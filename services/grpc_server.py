"""One of our gRPC servers: limits, statuses, health, reflection, and a graceful end. Knows no service of ours."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from encoder.errors import InUse
from services.status import StatusInterceptor

# What running calls get after SIGTERM before they are cut off.
DRAIN_S = 5.0

KEEPALIVE_MS = 30_000

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcServer:
    """A grpc.aio server for one service; not serving, as far as health tells, until :meth:`set_serving`."""

    def __init__(
        self, service: str, register: Callable[[grpc.aio.Server], None], *, message_bytes_max: int, calls_max: int
    ) -> None:
        self._service = service
        self._server = grpc.aio.server(
            interceptors=[StatusInterceptor()],
            options=[
                ("grpc.max_receive_message_length", message_bytes_max),
                ("grpc.max_send_message_length", message_bytes_max),
                ("grpc.max_concurrent_streams", calls_max),
                # Two servers on one port would each get a part of the calls.
                ("grpc.so_reuseport", 0),
                # A client that is gone without a word is noticed, and gives its place up.
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
            ],
        )
        register(self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(self._names(), self._server)
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. :class:`InUse` where another process has the port."""
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise InUse(
                f"Port {port} on {host} is in use, or the address is not this machine's; choose another."
            ) from error
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:  # noqa: FBT001 - a callback of one argument
        """Tell health checks whether this server can do its work."""
        status = SERVING if serving else NOT_SERVING
        for name in ("", self._service):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Refuse new calls, give running ones a while, end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(DRAIN_S)

    def _names(self) -> Sequence[str]:
        return (self._service, health.SERVICE_NAME, reflection.SERVICE_NAME)


def stop_signal() -> asyncio.Event:
    """Make an event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event
