"""Metrics that every server of ours has: its calls, whether it serves, what it is. Knows no service.

Labels are methods and codes, which the protos bound; never an id, a tenant, a path or a text.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from services.version import package_version

# Fine where a search has its bar (25 ms), coarse up to the longest timeout.
DURATION_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


def describe_process(registry: CollectorRegistry, process: str) -> None:
    """Tell what runs here, and what it takes of the machine."""
    # When each series began doubles their number, and nobody asks for it.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    build = Info("mambasearch_build", "What runs here.", registry=registry)
    build.info({"version": package_version(), "process": process, "python": platform.python_version()})
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)


class CallMetrics:
    """Counts a server's calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "mambasearch_requests",
            "Calls that have ended, by status; of method http/refused, HTTP requests that came to no method.",
            ("method", "code"),
            registry=registry,
        )
        self.duration = Histogram(
            "mambasearch_request_duration_seconds",
            "Time from a call's arrival to its answer; of streams, which live as long as their client, none.",
            ("method",),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.in_flight = Gauge(
            "mambasearch_requests_in_flight", "Calls and streams under way.", ("method",), registry=registry
        )
        self._serving = Gauge(
            "mambasearch_serving", "1 while the service can do its work, as its health says, else 0.", registry=registry
        )
        self.refusals = Counter(
            "mambasearch_quota_refusals",
            "Calls refused because a tenant or key had used up its quota of requests or tokens, or had its share of "
            "the calls at once (concurrency).",
            ("quota",),
            registry=registry,
        )

    def tell_serving(self, is_serving: Callable[[], bool]) -> None:
        """Have each scrape ask whether the service can do its work."""
        self._serving.set_function(lambda: float(is_serving()))

    def refused(self, quota: str) -> None:
        """Count a refusal by one of the quotas."""
        self.refusals.labels(quota).inc()
