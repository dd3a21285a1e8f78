"""The clock by which leases run out: that of the journal's database, whatever the machines of the workers say."""

from __future__ import annotations

import time

import sqlalchemy as sa

_NOW = {
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
}


class DatabaseClock:
    """Gives seconds since 1970; between two questions to the database it goes on by this machine's steady clock."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Give the time."""
        return time.monotonic() + self._ahead

    def ask(self, connection: sa.Connection) -> None:
        """Set it by the database; what an answer takes makes it at most so much late."""
        asked = time.monotonic()
        self._ahead = float(connection.scalar(sa.text(_NOW[connection.dialect.name]))) - asked
