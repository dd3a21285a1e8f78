"""What metrics each process has, as its code makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from services.observing.call_metrics import CallMetrics, describe_process
from services.observing.encoder_metrics import EncoderMetrics, QueueMetrics
from services.observing.index_metrics import IndexOwnerMetrics
from services.observing.ingest_metrics import IngestMetrics
from services.observing.search_metrics import IndexSizeMetrics, SearchMetrics


@dataclass(frozen=True)
class Family:
    """A metric, as Prometheus names it."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]
    processes: tuple[str, ...]

    @property
    def series(self) -> set[str]:
        """What may be asked for."""
        endings = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return {self.name + ending for ending in endings}


def _queue(registry: CollectorRegistry) -> None:
    registry.register(QueueMetrics(lambda lane: (0, 0, 0.0)))


PROCESSES: dict[str, list[Callable[[CollectorRegistry], object]]] = {
    # What the encoder tells, the search service tells where it embeds queries itself.
    "search": [CallMetrics, SearchMetrics, IndexSizeMetrics, EncoderMetrics, _queue],
    "ingest": [CallMetrics, IngestMetrics, IndexSizeMetrics],
    "index": [CallMetrics, IndexOwnerMetrics],
    "encoder": [CallMetrics, EncoderMetrics, _queue],
}
_SUFFIX = {"counter": "_total", "info": "_info"}


def families() -> list[Family]:
    """List the metrics of all processes, our own ones."""
    found: dict[str, Family] = {}
    for process, makers in PROCESSES.items():
        registry = CollectorRegistry()
        describe_process(registry, process)
        for make in makers:
            make(registry)
        for one, labels in _described(registry):
            name = one.name + _SUFFIX.get(one.type, "")
            if name.startswith("mambasearch_"):
                known = found.get(name)
                processes = (*(known.processes if known else ()), process)
                found[name] = Family(name, one.type, one.documentation, labels, processes)
    return list(found.values())


def _described(registry: CollectorRegistry) -> list[tuple[object, tuple[str, ...]]]:
    described = []
    for collector in list(registry._collector_to_names):
        for one in collector.collect():
            labels = getattr(collector, "_labelnames", None) or getattr(one, "_labelnames", ()) or ()
            described.append((one, tuple(labels)))
    return described
