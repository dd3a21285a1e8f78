"""What tests of jobs share: an index, its writer and a store of jobs, in memory, with moods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from qdrant_client import AsyncQdrantClient

from ingest.database import Database
from ingest.jobs.running import Worker
from ingest.jobs.store import JobStore
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from tests.pipelining import DIMENSION, Clock, MoodyEncoder, MoodyIndex, fingerprint, make_chunker


@dataclass
class Parts:
    encoder: MoodyEncoder
    index: MoodyIndex
    journal: Journal
    store: JobStore
    ingestor: Ingestor

    def worker(self) -> Worker:
        return Worker(self.ingestor, self.index)


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    encoder = MoodyEncoder()
    index = await MoodyIndex.open(
        AsyncQdrantClient(location=":memory:"), collection="c", dimension=DIMENSION, fingerprint=fingerprint()
    )
    assert isinstance(index, MoodyIndex)
    index.failures = []
    journal = await Journal.open()
    ingestor = Ingestor(encoder, index, make_chunker(), journal, retry_delays_s=())
    yield Parts(encoder, index, journal, JobStore(journal.database), ingestor)
    await journal.close()
    await index.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def stores(database_url: str, clock: Clock) -> AsyncIterator[tuple[JobStore, JobStore]]:
    """Two processes' views of one database."""
    databases = [await Database.open(database_url) for _ in range(2)]
    one, other = (JobStore(database, lease_s=30, now=clock) for database in databases)
    yield one, other
    for database in databases:
        await database.close()
