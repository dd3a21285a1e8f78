"""Thirty kills while documents are ingested; ``make prove-crashes`` is two hundred of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.crashes.killing import run


@pytest.mark.timeout(600)
async def test_kills_lose_nothing_double_nothing_and_leave_nothing(tmp_path: Path) -> None:
    assert await run(kills=30, documents=60, seed=4, folder=tmp_path) == []
