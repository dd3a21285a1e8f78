"""An ingestor between an encoder and an index with moods."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from qdrant_client import AsyncQdrantClient

from ingest.pipeline import Ingestor
from tests.pipelining import DIMENSION, MoodyEncoder, MoodyIndex, fingerprint, make_chunker


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
def ingestor(encoder: MoodyEncoder, index: MoodyIndex) -> Ingestor:
    return Ingestor(encoder, index, make_chunker(), retry_delays_s=(0, 0, 0))
