"""The HTTP application, open to all, as most tests want it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.http.serving import Served, served


@pytest.fixture
async def http() -> AsyncIterator[Served]:
    async with served() as made:
        yield made
