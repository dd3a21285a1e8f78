"""What all tests share: Ctrl-C reaches them and what they start; databases."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.journal import journal_url
from tests.databases import NO_POSTGRES, postgres_database


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Undo what a shell does to programs in the background: they begin with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=NO_POSTGRES)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, which may be opened several times."""
    if request.param == "sqlite":
        yield journal_url(tmp_path)
        return
    with postgres_database() as url:
        yield url
