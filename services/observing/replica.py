"""What an encoder replica is observed by: calls, traces, metrics on the machine's one port for them. Knows no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from encoder.call_context import Span
from services.observing.call_metrics import describe_process
from services.observing.calls import CallObserver
from services.observing.encoder_metrics import EncoderMetrics
from services.observing.logs import configure_logging
from services.observing.node import NodeMetrics
from services.observing.process import make_call_observer, open_tracing
from services.setting_groups import ObservingSettings

if TYPE_CHECKING:
    from services.observing.tracing import Tracing


@dataclass(frozen=True, slots=True)
class ReplicaObserving:
    """How a replica is to be observed; travels to its process pickled."""

    settings: ObservingSettings
    metrics_port: int

    def begin(self, application: str) -> ReplicaObserved:
        """Observe this process from here on."""
        configure_logging(application, self.settings.log_level, self.settings.log_format)
        registry = CollectorRegistry()
        describe_process(registry, application)
        tracing = open_tracing(application, self.settings)
        origin: Span | None = tracing.origin if tracing else None
        node = (
            NodeMetrics(registry, application, self.settings.metrics_host, self.metrics_port)
            if self.metrics_port
            else None
        )
        calls = make_call_observer(registry, origin, self.settings, begins_traces=False)
        return ReplicaObserved(registry, calls, EncoderMetrics(registry), tracing, node)


@dataclass(frozen=True, slots=True)
class ReplicaObserved:
    """What a replica is observed by, until :meth:`close`."""

    registry: CollectorRegistry
    calls: CallObserver
    encoder: EncoderMetrics
    tracing: Tracing | None
    node: NodeMetrics | None

    def close(self) -> None:
        """Send the traces that are left; tell no metrics more."""
        if self.tracing:
            self.tracing.close()
        if self.node:
            self.node.close()
