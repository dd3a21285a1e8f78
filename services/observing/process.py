"""A process's observing: its registry and port for metrics, its traces, what observes its calls. Knows no service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from prometheus_client import CollectorRegistry

from encoder.call_context import Span, trace_with
from encoder.errors import InvalidInput, MambaSearchError
from services.observing.call_metrics import CallMetrics, describe_process
from services.observing.calls import CallObserver
from services.observing.http_server import MetricsServer
from services.observing.interceptor import CallInterceptor
from services.setting_groups import ObservingSettings
from services.version import package_version

if TYPE_CHECKING:
    from services.observing.tracing import Tracing

# How often what has to be asked for (sizes, jobs) is measured: as often as Prometheus scrapes, or a little more.
PERIOD_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a process is observed by."""

    registry: CollectorRegistry
    calls: CallObserver

    @property
    def interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """What a gRPC server needs, outermost."""
        return [CallInterceptor(self.calls)]


@asynccontextmanager
async def observing(
    process: str, settings: ObservingSettings, metrics_port: int, *, begins_traces: bool = True
) -> AsyncIterator[Observed]:
    """Observe a process from here on; ``metrics_port`` 0: its metrics are for whoever has the registry.

    Parts behind the doors go on with the traces of their clients, and begin none: most of what they are asked is
    whether they are well.

    :class:`InUse` where the port is another's; :class:`InvalidInput` where traces are wanted and cannot be made.
    """
    async with AsyncExitStack() as stack:
        registry = CollectorRegistry()
        describe_process(registry, process)
        tracing = open_tracing(process, settings)
        if tracing:
            stack.push_async_callback(asyncio.to_thread, tracing.close)
            trace_with(tracing.origin)
            stack.callback(trace_with, None)
        if metrics_port:
            server = MetricsServer(registry, settings.metrics_host, metrics_port)
            stack.callback(server.close)
            logger.info("metrics on %s:%d", settings.metrics_host, server.port)
        origin: Span | None = tracing.origin if tracing else None
        yield Observed(registry, make_call_observer(registry, origin, settings, begins_traces=begins_traces))


def make_call_observer(
    registry: CollectorRegistry, origin: Span | None, settings: ObservingSettings, *, begins_traces: bool
) -> CallObserver:
    """Make what observes calls, by the settings."""
    return CallObserver(
        CallMetrics(registry),
        origin,
        access_log=settings.access_log,
        slow_call_s=settings.slow_call_s,
        begins_traces=begins_traces,
    )


def open_tracing(process: str, settings: ObservingSettings) -> Tracing | None:
    """Begin to send traces where settings say where to; None, and nothing is imported, where they do not."""
    if settings.otlp_endpoint is None:
        return None
    try:
        from services.observing.tracing import Tracing
    except ImportError as error:
        raise InvalidInput(
            "otlp_endpoint",
            f"otlp_endpoint is set, but {error.name} is not installed; install mamba-search[tracing], or unset it.",
        ) from None
    return Tracing(process, package_version(), settings.otlp_endpoint, settings.trace_ratio)


@asynccontextmanager
async def measuring(measure: Callable[[], Awaitable[None]], period_s: float = PERIOD_S) -> AsyncIterator[None]:
    """Call ``measure`` again and again meanwhile; what it cannot measure for now is as it was."""

    async def run() -> None:
        while True:
            try:
                await measure()
            except (MambaSearchError, OSError) as error:
                logger.debug("not measured: %s", error)
            await asyncio.sleep(period_s)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
