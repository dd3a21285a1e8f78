"""Metrics of searching, and of the index as who asks it sees it. Knows no service."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from encoder.call_context import current_call
from ingest.index.interface import IndexStats
from services.observing.call_metrics import DURATION_BUCKETS_S


class SearchMetrics:
    """Measures searches by stage."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stages = Histogram(
            "mambasearch_search_stage_duration_seconds",
            "Time of a search by stage, as its answer's timings name them.",
            ("stage",),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._tokens = Counter("mambasearch_search_query_tokens", "Tokens of encoded queries.", registry=registry)
        self._outcomes = Counter(
            "mambasearch_search_outcomes",
            "Searches of batches and streams that were answered, by status: the call that brings them is one request.",
            ("method", "code"),
            registry=registry,
        )

    def searched(self, stages_ms: Mapping[str, float], query_tokens: int) -> None:
        """Count a search: its stages in milliseconds, of those that it had. They go into the call's log line, too."""
        for stage, milliseconds in stages_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000)
        self._tokens.inc(query_tokens)
        if call := current_call():
            call.notes.update({f"{stage}_ms": round(value, 3) for stage, value in stages_ms.items()})

    def answered(self, method: str, code: str) -> None:
        """Count one of the searches that a call brings, by the status that it has of its own."""
        self._outcomes.labels(method, code).inc()


class IndexSizeMetrics:
    """Tells how large the index is, whichever engine holds it; each process that asks it tells the same."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._documents = Gauge("mambasearch_index_documents", "Documents in the index.", registry=registry)
        self._chunks = Gauge(
            "mambasearch_index_chunks", "Chunks in the index, replaced ones not yet collected included.",
            registry=registry,
        )  # fmt: skip

    def measured(self, stats: IndexStats) -> None:
        """Take over what the index told."""
        self._documents.set(stats.document_count)
        self._chunks.set(stats.chunk_count)
