"""The journal's tables, and how its database is opened: SQLite on one machine, PostgreSQL for workers on several."""

from __future__ import annotations

import sqlite3
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from encoder.errors import InvalidInput, JournalUnavailable, StorageFull

FORMAT_VERSION = 1
BUSY_TIMEOUT_MS = 30_000
MEMORY_URL = "sqlite://"

metadata = sa.MetaData()

# The highest generation that each document was ever given. Rows are never removed: a number is never given twice.
documents = sa.Table(
    "documents",
    metadata,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("document_id", sa.String, primary_key=True),
    sa.Column("latest", sa.BigInteger, nullable=False),
)

# Generations that someone is writing, or was when a crash came.
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("document_id", sa.String, primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True),
    sa.Column("owner", sa.String, nullable=False, index=True),
    sa.Column("lease_until", sa.Float, nullable=False, index=True),  # seconds since 1970
)

# Chunks that no new search will read: those of a document's generations before one.
garbage = sa.Table(
    "garbage",
    metadata,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("document_id", sa.String, primary_key=True),
    sa.Column("below", sa.BigInteger, primary_key=True),
    sa.Column("tombstone", sa.BigInteger, nullable=False),  # the generation of a deletion, 0 where there was none
    sa.Column("not_before", sa.Float, nullable=False, index=True),  # seconds since 1970
)

about = sa.Table(
    "about",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)


def open_database(url: str) -> sa.Engine:
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
        engine = sa.create_engine(parsed, **options)
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
