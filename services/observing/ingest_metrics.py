"""Metrics of an ingestion worker. Knows no service and no journal: it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ingest.receipts import Outcome, Progress

# From a handful of small chunks to a batch for a GPU, or a document of a million tokens on a CPU.
STAGE_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class IngestMetrics:
    """Measures a worker's documents, and what its journal holds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._documents = Counter(
            "mambasearch_ingest_documents", "Documents with a receipt, by outcome.", ("outcome",), registry=registry
        )
        for outcome in Outcome:
            self._documents.labels(outcome.value)  # there from the start: a rate over what was not there is none
        self._chunks = Counter("mambasearch_ingest_chunks", "Chunks written to the index.", registry=registry)
        self._tokens = Counter("mambasearch_ingest_tokens", "Tokens of the chunks written.", registry=registry)
        self._bytes = Counter(
            "mambasearch_ingest_text_bytes", "Bytes of text of documents with a receipt, as UTF-8.", registry=registry
        )
        self._retries = Counter(
            "mambasearch_ingest_retries",
            "Calls to encoder, index or journal that were made again because they failed.",
            registry=registry,
        )
        self._stages = Histogram(
            "mambasearch_ingest_stage_duration_seconds",
            "Time of a group of documents (prepare, commit) or a batch of chunks (encode, write) in a stage.",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._oldest = Gauge(
            "mambasearch_ingest_oldest_unacknowledged_seconds",
            "Age of the document that has waited longest for its receipt; 0 where none waits.",
            registry=registry,
        )
        self._jobs = Gauge(
            "mambasearch_ingest_jobs", "Jobs of the journal by state, those that ended included.", ("state",),
            registry=registry,
        )  # fmt: skip
        self._oldest_job = Gauge(
            "mambasearch_ingest_oldest_queued_job_seconds",
            "Age of the job that has waited longest to be begun; 0 where none waits.",
            registry=registry,
        )
        self._letters = Gauge(
            "mambasearch_ingest_dead_letters", "Documents of jobs that could not be ingested.", registry=registry
        )

    def tell_oldest(self, oldest_s: Callable[[], float]) -> None:
        """Have each scrape ask for the age of the oldest document without a receipt."""
        self._oldest.set_function(oldest_s)

    def follow(self) -> Callable[[Progress], None]:
        """Make what takes one ingestor's progress: a worker has several, one after another, and each counts from 0."""
        last = Progress()

        def follow(progress: Progress) -> None:
            nonlocal last
            for outcome in Outcome:
                name = outcome.value
                if more := getattr(progress, name) - getattr(last, name):
                    self._documents.labels(name).inc(more)
            self._chunks.inc(progress.chunks - last.chunks)
            self._tokens.inc(progress.tokens - last.tokens)
            self._bytes.inc(progress.text_bytes - last.text_bytes)
            self._retries.inc(progress.retries - last.retries)
            last = progress

        return follow

    def staged(self, stage: str, seconds: float) -> None:
        """Count a group's or a batch's time in a stage."""
        self._stages.labels(stage).observe(seconds)

    def measured_jobs(self, jobs: Mapping[str, int], *, oldest_queued_s: float, dead_letters: int) -> None:
        """Take over what the journal holds: jobs by state, all states among them."""
        for state, count in jobs.items():
            self._jobs.labels(state).set(count)
        self._oldest_job.set(oldest_queued_s)
        self._letters.set(dead_letters)
