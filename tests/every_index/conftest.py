"""Each index in turn: what is asked of one here is asked of all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingest.index.interface import VectorIndex
from tests.indexes import KINDS, opened_index


@pytest.fixture(params=KINDS)
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorIndex]:
    async with opened_index(request.param, tmp_path) as opened:
        yield opened
