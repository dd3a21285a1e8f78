"""The database of ingestion's state: SQLite on one machine, PostgreSQL for workers on several.

The journal and the jobs share it, each with tables of its own. Knows none of them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from encoder.errors import InvalidInput, JournalUnavailable, StorageFull

FORMAT_VERSION = 1
BUSY_TIMEOUT_MS = 30_000
MEMORY_URL = "sqlite://"
_MAKING_TABLES = 0x6D616D6261  # any number that others do not lock

metadata = sa.MetaData()

_Result = TypeVar("_Result")

about = sa.Table(
    "about",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)


class Database:
    """One process's connection. Calls run one after another on a thread of their own.

    Every call may raise :class:`JournalUnavailable` or :class:`StorageFull`.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")

    @classmethod
    async def open(cls, url: str = MEMORY_URL) -> Self:
        """Open a database, or make it; without an address, one that ends with the process.

        Raises what :func:`open_engine` raises.
        """
        return cls(await asyncio.to_thread(open_engine, url))

    async def write(self, call: Callable[[sa.Connection], _Result]) -> _Result:
        """Run a transaction: all of it is in the database afterwards, or, where it raises, nothing."""

        def run() -> _Result:
            try:
                with self._engine.begin() as connection:
                    return call(connection)
            except sa.exc.SQLAlchemyError as error:
                raise unavailable(self._engine, error) from error

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)

    async def read(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        """Read all rows of a query."""
        return await self.write(lambda connection: connection.execute(statement).all())

    def upsert(self, table: sa.Table) -> Any:  # noqa: ANN401 - either dialect's Insert; they share no base with on_conflict
        """Begin an ``INSERT … ON CONFLICT`` in the database's own dialect."""
        return upsert(self._engine, table)

    async def close(self) -> None:
        """Let go of the database."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._engine.dispose)
        self._executor.shutdown(wait=False)


def open_engine(url: str) -> sa.Engine:
    """Connect, and make the tables where there are none.

    :class:`InvalidInput` for an address of another kind of database, :class:`JournalUnavailable` for one that cannot be
    opened or that another version of this program made.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise InvalidInput("journal_url", f"journal_url is {url!r}; give sqlite:///FILE or postgresql://….") from None
    kind = parsed.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise InvalidInput("journal_url", f"journal_url names {kind}; sqlite and postgresql are supported.")
    in_memory = kind == "sqlite" and not parsed.database
    options: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
    if kind == "sqlite":
        options["connect_args"] = {"check_same_thread": False}
    try:
        # Its messages and logs would quote what callers sent.
        engine = sa.create_engine(parsed, hide_parameters=True, **options)
    except ModuleNotFoundError as error:
        raise InvalidInput(
            "journal_url", f"journal_url needs the package {error.name}; install mamba-search[postgres]."
        ) from None
    if kind == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
        # The lock is taken at the start, where others are waited for; taken later, it may be refused at once.
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            if kind == "postgresql":
                # Two who make one table at once fail there, for all that each asks whether it is there.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING_TABLES)))
            for table in metadata.sorted_tables:
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
            statement = upsert(engine, about).values(name="format", value=str(FORMAT_VERSION))
            connection.execute(statement.on_conflict_do_nothing())
            found = connection.scalar(sa.select(about.c.value).where(about.c.name == "format"))
    except sa.exc.SQLAlchemyError as error:
        engine.dispose()
        raise unavailable(engine, error) from error
    if found != str(FORMAT_VERSION):
        engine.dispose()
        raise JournalUnavailable(
            f"The journal {name_of(engine)} has format {found}, this program needs {FORMAT_VERSION}; use the program "
            "that made it, or a new journal and a new index."
        )
    return engine


def upsert(engine: sa.Engine, table: sa.Table) -> Any:  # noqa: ANN401 - either dialect's Insert; they share no base with on_conflict
    """Begin an ``INSERT … ON CONFLICT`` in the database's own dialect."""
    return (postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert)(table)


def unavailable(engine: sa.Engine, error: sa.exc.SQLAlchemyError) -> JournalUnavailable | StorageFull:
    """Say that the journal failed, and why."""
    reason = str(getattr(error, "orig", None) or error).splitlines()[0][:300]
    if "disk is full" in reason or "No space left" in reason:
        return StorageFull(f"The disk of the journal {name_of(engine)} is full; free some space and try again.")
    return JournalUnavailable(f"The journal {name_of(engine)} failed ({reason}); nothing was lost, try again.")


def name_of(engine: sa.Engine) -> str:
    """Name a database for people, without its password."""
    return engine.url.render_as_string(hide_password=True)


def _set_up_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions begin where we say so, not where the driver thinks fit
    for pragma in (
        "journal_mode = WAL",
        # Every commit reaches the disk: a generation that was given out and forgotten would leave points nobody knows.
        "synchronous = FULL",
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
    ):
        connection.execute(f"PRAGMA {pragma}")
