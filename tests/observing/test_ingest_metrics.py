"""What an ingestion worker tells: documents by outcome, stages, age, jobs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoded
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.documents import Document
from ingest.index.memory import MemoryIndex
from ingest.jobs.requests import JobKind, JobRequest
from ingest.jobs.states import JobState
from ingest.jobs.store import JobStore
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import Progress
from services.observing.ingest_metrics import IngestMetrics
from tests.fakes import FakeEncoder


def test_counts_go_on_where_an_ingestor_takes_anothers_place() -> None:
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry)
    first, second = metrics.follow(), metrics.follow()
    first(Progress(documents=1, ingested=1, chunks=3, tokens=30, text_bytes=100))
    first(Progress(documents=2, ingested=1, rejected=1, chunks=3, tokens=30, text_bytes=150, retries=1))
    second(Progress(documents=1, ingested=1, chunks=2, tokens=20, text_bytes=50))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"mambasearch_ingest_{name}", labels)

    assert value("documents_total", outcome="ingested") == 2
    assert value("documents_total", outcome="rejected") == 1
    assert value("documents_total", outcome="unchanged") == 0
    assert (value("chunks_total"), value("tokens_total"), value("text_bytes_total")) == (5, 50, 200)
    assert value("retries_total") == 1


async def test_stages_are_timed_and_the_oldest_document_has_an_age() -> None:
    encoder, chunker = SlowEncoder(), Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    fingerprint = index_fingerprint((await encoder.info()).fingerprint, chunker.fingerprint)
    index = MemoryIndex(dimension=384, fingerprint=fingerprint)
    journal = await Journal.open()
    stages: Counter[str] = Counter()
    ingestor = Ingestor(encoder, index, chunker, journal, on_stage=lambda stage, seconds: stages.update([stage]))
    assert ingestor.oldest_s == 0
    ingesting = asyncio.create_task(ingestor.ingest(Document(document_id="a", text="some words")))
    await encoder.asked.wait()
    await asyncio.sleep(0.05)
    assert 0.05 <= ingestor.oldest_s < 30
    encoder.go.set()
    await ingesting
    assert ingestor.oldest_s == 0
    assert stages == {"prepare": 1, "encode": 1, "write": 1, "commit": 1}
    with pytest.raises(asyncio.CancelledError):
        await _cancelled(ingestor, encoder)
    assert ingestor.oldest_s == 0, "who gives up lets go"
    await journal.close()


async def _cancelled(ingestor: Ingestor, encoder: SlowEncoder) -> None:
    encoder.go.clear()
    encoder.asked.clear()
    ingesting = asyncio.create_task(ingestor.ingest(Document(document_id="b", text="other words")))
    await encoder.asked.wait()
    ingesting.cancel()
    await ingesting


class SlowEncoder(FakeEncoder):
    """Encodes passages when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        self.asked.set()
        await self.go.wait()
        return await super().encode_passages(passages)


async def test_jobs_are_counted_by_state_with_the_age_of_the_oldest(database_url: str) -> None:
    now = [1000.0]
    journal = await Journal.open(database_url, now=lambda: now[0])
    store = JobStore(journal.database, now=lambda: now[0])
    counts = await store.count()
    assert set(counts.by_state) == set(JobState)
    assert not any(counts.by_state.values())
    assert (counts.oldest_queued_s, counts.dead_letters) == (0, 0)
    for number in range(3):
        await store.create(f"request {number}", JobRequest(JobKind.INGEST, sources=("/a",)))
        now[0] += 10
    await store.claim()
    counts = await store.count()
    assert counts.by_state[JobState.QUEUED] == 2
    assert counts.by_state[JobState.RUNNING] == 1
    assert counts.oldest_queued_s == 20
    await journal.close()
