"""Databases for tests of what ingestion keeps: SQLite, and PostgreSQL where the environment names a server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL")  # noqa: TID251 - tests only; it is no setting of a process
NO_POSTGRES = pytest.mark.skipif(POSTGRES_URL is None, reason="TEST_POSTGRES_URL names no PostgreSQL")


@contextmanager
def postgres_database() -> Iterator[str]:
    """Make an empty database, and drop it at the end."""
    assert POSTGRES_URL
    name = f"test_{uuid.uuid4().hex}"
    server = sa.create_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()
