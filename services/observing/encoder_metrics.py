"""Metrics of an encoder replica: its queue, its batches, its GPU. Knows no scheduler: it is told, or asks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

LANES = ("queries", "passages")
# A query on a GPU takes a millisecond; a turn of passages on a busy CPU, seconds.
TIME_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
TOKEN_BUCKETS = tuple(float(2**power) for power in range(3, 19))
SIZE_BUCKETS = tuple(float(2**power) for power in range(11))
FILL_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))


class EncoderMetrics:
    """Measures a replica's batches and waits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._wait = Histogram(
            "mambasearch_encoder_queue_wait_seconds",
            "Time that a request or a piece of a document waited for its turn.",
            ("lane",),
            buckets=TIME_BUCKETS_S,
            registry=registry,
        )
        self._forward = Histogram(
            "mambasearch_encoder_forward_seconds",
            "Time of one forward pass: of a batch, or of a piece of a document.",
            ("lane",),
            buckets=TIME_BUCKETS_S,
            registry=registry,
        )
        self._batch_tokens = Histogram(
            "mambasearch_encoder_batch_tokens",
            "Tokens of a batch.",
            ("lane",),
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        self._batch_texts = Histogram(
            "mambasearch_encoder_batch_texts", "Texts of a batch.", ("lane",), buckets=SIZE_BUCKETS, registry=registry
        )
        self._batch_fill = Histogram(
            "mambasearch_encoder_batch_fill_ratio",
            "Tokens of a batch over the budget that it could have used.",
            ("lane",),
            buckets=FILL_BUCKETS,
            registry=registry,
        )
        self._ended = Counter(
            "mambasearch_encoder_requests_ended",
            "Requests that left the scheduler: done, refused, expired, cancelled, poisoned or failed.",
            ("lane", "outcome"),
            registry=registry,
        )
        self._canary = Gauge(
            "mambasearch_encoder_canary_seconds", "Time of the last embedding of the canary's text.", registry=registry
        )
        self._tokens = Counter("mambasearch_encoder_tokens", "Tokens encoded.", ("lane",), registry=registry)
        for lane in LANES:
            self._tokens.labels(lane)  # there from the start: a rate over what was not there is none
        registry.register(_GpuMemory())

    def waited(self, lane: str, seconds: float) -> None:
        """Count a wait that has ended with a turn."""
        self._wait.labels(lane).observe(seconds)

    def encoded(self, lane: str, *, texts: int, tokens: int, budget: int, seconds: float) -> None:
        """Count a batch; ``budget`` is what tokens it could have had."""
        self._forward.labels(lane).observe(seconds)
        self._batch_tokens.labels(lane).observe(tokens)
        self._batch_texts.labels(lane).observe(texts)
        self._batch_fill.labels(lane).observe(tokens / budget)
        self._tokens.labels(lane).inc(tokens)

    def ended(self, lane: str, outcome: str) -> None:
        """Count a request that left the scheduler."""
        self._ended.labels(lane, outcome).inc()

    def canary_checked(self, seconds: float) -> None:
        """Take over how long the canary took."""
        self._canary.set(seconds)


class QueueMetrics(Collector):
    """Asks a replica's queue at each scrape: depth, tokens and age by lane."""

    def __init__(self, look: Callable[[str], tuple[int, int, float] | None]) -> None:
        """``look`` gives a lane's waiting requests, their tokens, and the seconds that the oldest has waited.

        It is called in the scrape's thread, and gives None where it cannot tell.
        """
        self._look = look

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the queue."""
        depth = GaugeMetricFamily("mambasearch_encoder_queue_requests", "Requests that wait.", labels=["lane"])
        queued = GaugeMetricFamily("mambasearch_encoder_queue_tokens", "Tokens that wait.", labels=["lane"])
        age = GaugeMetricFamily(
            "mambasearch_encoder_queue_oldest_seconds",
            "Age of the request that has waited longest; 0 where none waits.",
            labels=["lane"],
        )
        for lane in LANES:
            state = self._look(lane)
            if state is None:
                continue
            requests, tokens, oldest_s = state
            depth.add_metric([lane], requests)
            queued.add_metric([lane], tokens)
            age.add_metric([lane], oldest_s)
        yield from (depth, queued, age)


class _GpuMemory(Collector):
    """Asks torch for the memory of the GPUs that this process uses; tells nothing where it uses none."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "mambasearch_encoder_gpu_memory_bytes",
            "GPU memory: allocated and reserved by this replica; used of the whole GPU, by all processes; total.",
            labels=["gpu", "kind"],
        )
        # Whoever loaded a model has imported torch; a process without is not to import it for this.
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            for gpu in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(gpu)
                reserved = torch.cuda.memory_reserved(gpu)
                if not reserved:
                    continue
                kinds = {"allocated": torch.cuda.memory_allocated(gpu), "reserved": reserved}
                kinds |= {"used": total - free, "total": total}
                for kind, count in kinds.items():
                    family.add_metric([str(gpu), kind], count)
        yield family
