"""An ingestor between an encoder and an index with moods."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from qdrant_client import AsyncQdrantClient

from ingest.journal import Journal
from ingest.pipeline import Ingestor
from tests.pipelining import DIMENSION, Clock, MoodyEncoder, MoodyIndex, fingerprint, make_chunker


@pytest.fixture
def encoder() -> MoodyEncoder:
    return MoodyEncoder()


@pytest.fixture
async def index() -> AsyncIterator[MoodyIndex]:
    client = AsyncQdrantClient(location=":memory:")  # opens in no time
    opened = await MoodyIndex.open(client, collection="c", dimension=DIMENSION, fingerprint=fingerprint())
    opened.failures = []
    yield opened
    await opened.close()


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    opened = await Journal.open(lease_s=30, now=Clock())
    yield opened
    await opened.close()


@pytest.fixture
def ingestor(encoder: MoodyEncoder, index: MoodyIndex, journal: Journal) -> Ingestor:
    return Ingestor(encoder, index, make_chunker(), journal, retry_delays_s=(0, 0, 0))
