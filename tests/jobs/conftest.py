"""What tests of jobs share: an index, its writer and a store of jobs, in memory, with moods."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from qdrant_client import AsyncQdrantClient

from ingest.database import Database
from ingest.jobs.running import Worker
from ingest.jobs.store import JobStore
from ingest.journal import Journal, journal_url
from ingest.pipeline import Ingestor
from tests.pipelining import DIMENSION, Clock, MoodyEncoder, MoodyIndex, fingerprint, make_chunker

# Taken out of the environment: it is no setting, and processes of ours refuse what they do not know.
POSTGRES_URL = os.environ.pop("MAMBASEARCH_TEST_POSTGRES_URL", None)  # noqa: TID251 - tests only
NO_POSTGRES = pytest.mark.skipif(POSTGRES_URL is None, reason="MAMBASEARCH_TEST_POSTGRES_URL names no PostgreSQL")


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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=NO_POSTGRES)])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database, which may be opened several times."""
    if request.param == "sqlite":
        yield journal_url(tmp_path)
        return
    assert POSTGRES_URL
    name = f"test_{uuid.uuid4().hex}"
    server = sa.create_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
async def stores(database_url: str, clock: Clock) -> AsyncIterator[tuple[JobStore, JobStore]]:
    """Two processes' views of one database."""
    databases = [await Database.open(database_url) for _ in range(2)]
    one, other = (JobStore(database, lease_s=30, now=clock) for database in databases)
    yield one, other
    for database in databases:
        await database.close()
