"""The journal: which generation of which document is being written, by whom, and what is to be cleared away afterwards.

It is written before the index is, so that after a crash at any moment somebody knows what was begun. It gives out
generations: per document each number once, for ever, also after a deletion. A writer holds a lease on what it writes
and renews it; what is left with a lease that has run out is an attempt that nobody finishes. Knows no index.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import sqlalchemy as sa

from ingest.database import MEMORY_URL, Database
from ingest.index.interface import FIRST_GENERATION, DocumentKey
from ingest.journal_clock import DatabaseClock
from ingest.journal_tables import attempts, documents, garbage

JOURNAL_FILE = "journal.sqlite"
LEASE_S = 30.0
# An owner renews its leases this often; it has to miss several times before anyone takes it for dead.
HEARTBEAT_S = 5.0


class Attempt(NamedTuple):
    """A generation of a document that was given out."""

    key: DocumentKey
    generation: int


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can be taken out of the index: a document's chunks of generations before ``below``, but for those in use."""

    key: DocumentKey
    below: int
    tombstone: int  # the generation of a deletion, whose mark can go, too; 0 where there was none
    # Seconds since 1970; it tells whether more has come since it was read, and is not given for a new one.
    not_before: float = field(default=0.0, compare=False)


class Journal:
    """One process's view of the journal.

    Every method may raise :class:`encoder.errors.JournalUnavailable`; all are safe to repeat, except that :meth:`begin`
    gives other numbers each time.
    """

    def __init__(self, database: Database, lease_s: float, now: Callable[[], float] | None) -> None:
        self.database = database  # which the jobs may share
        self.lease_s = lease_s
        self._clock = DatabaseClock()
        self.now = now or self._clock  # seconds since 1970
        self._owner = uuid.uuid4().hex
        self._held: dict[Attempt, float] = {}  # what this process goes on with, and until when it may

    @classmethod
    async def open(
        cls, url: str = MEMORY_URL, *, lease_s: float | None = None, now: Callable[[], float] | None = None
    ) -> Self:
        """Open a journal, or make it; without an address, one that ends with the process, and so do its leases.

        Leases run out by the database's clock, unless ``now`` gives another (seconds since 1970).
        Raises what :func:`ingest.database.open_engine` raises.
        """
        if lease_s is None:
            lease_s = 1e9 if url == MEMORY_URL else LEASE_S
        journal = cls(await Database.open(url), lease_s, now)
        try:
            await journal.database.write(journal._clock.ask)
        except BaseException:
            await journal.close()
            raise
        return journal

    async def abandon_others(self) -> None:
        """End the leases of all other owners: none of them is alive, because the index has one process at a time."""
        statement = attempts.update().where(attempts.c.owner != self._owner).values(lease_until=0.0)
        await self.database.write(lambda connection: connection.execute(statement))

    async def begin(self, keys: Sequence[DocumentKey], above: Mapping[DocumentKey, int]) -> dict[DocumentKey, int]:
        """Give each document its next generation, above all that it ever had and above what the index has seen."""

        def write(connection: sa.Connection) -> dict[DocumentKey, int]:
            found = {}
            statement = self.database.upsert(documents)
            proposed = statement.excluded.latest
            latest = sa.case((documents.c.latest >= proposed, documents.c.latest + 1), else_=proposed)
            raised = statement.on_conflict_do_update(
                index_elements=[documents.c.tenant, documents.c.document_id], set_={"latest": latest}
            ).returning(documents.c.latest)
            for key in sorted(keys):  # in one order, so that no two wait for each other
                row = {"tenant": key.tenant, "document_id": key.document_id, "latest": above.get(key, 0) + 1}
                found[key] = int(connection.execute(raised, row).scalar_one())
            rows = [
                _columns(key) | {"generation": generation, "owner": self._owner, "lease_until": lease_until}
                for key, generation in found.items()
            ]
            if rows:
                connection.execute(attempts.insert(), rows)
            return found

        lease_until = self.now() + self.lease_s
        begun = await self.database.write(write)
        self._held |= {Attempt(key, generation): lease_until for key, generation in begun.items()}
        return begun

    async def renew(self) -> None:
        """Renew the leases of all that this process is writing."""
        await self.database.write(self._clock.ask)
        held, lease_until = list(self._held), self.now() + self.lease_s
        rows = [_named(attempt) for attempt in held]
        statement = attempts.update().where(*_IS_NAMED).values(lease_until=lease_until)
        if rows:
            await self.database.write(lambda connection: connection.execute(statement, rows))
        self._held |= {attempt: lease_until for attempt in held if attempt in self._held}

    def holds(self, attempt: Attempt) -> bool:
        """Say whether this process may still write an attempt: its lease has not run out."""
        return self.now() < self._held.get(attempt, 0.0)

    def let_go(self, given_up: Iterable[Attempt]) -> None:
        """Renew the leases of attempts no longer; whoever clears away settles them once those have run out."""
        for attempt in given_up:
            self._held.pop(attempt, None)

    async def finish(
        self, committed: Iterable[Attempt], collect_after_s: float, *, grown: Collection[Attempt] = ()
    ) -> None:
        """Close attempts that are committed; what came before them is garbage in ``collect_after_s`` seconds.

        Not of those that have ``grown``: all of the version before stays theirs, and what lets go of it says since when
        nobody reads it.
        """
        closed = list(committed)
        replacing = [attempt for attempt in closed if attempt not in grown]
        await self._close(closed, [Garbage(key, generation, 0) for key, generation in replacing], collect_after_s)

    async def finish_deletion(self, deletion: Attempt, collect_after_s: float) -> None:
        """Close a deletion; all of the document, and the deletion's own mark, are garbage in ``collect_after_s``."""
        key, generation = deletion
        # A first version that came to nothing is closed so, too, and has chunks of its own.
        await self._close([deletion], [Garbage(key, generation + 1, generation)], collect_after_s)

    async def withdraw(self, attempt: Attempt) -> None:
        """Close an attempt that came to nothing, and of which nothing is left in the index."""
        await self._close([attempt], [], 0.0)

    async def discard(self, attempt: Attempt, collect_after_s: float) -> None:
        """Close an attempt that is not the visible version, but may have been: it is garbage in ``collect_after_s``."""
        await self._close([attempt], [Garbage(attempt.key, attempt.generation + 1, 0)], collect_after_s)

    async def under_way(self, keys: Sequence[DocumentKey]) -> set[DocumentKey]:
        """Say which documents somebody is writing, or was when a crash came."""
        columns = sa.tuple_(attempts.c.tenant, attempts.c.document_id)
        statement = sa.select(attempts.c.tenant, attempts.c.document_id).where(
            columns.in_([tuple(key) for key in keys])
        )
        return (
            {DocumentKey(row.tenant, row.document_id) for row in await self.database.read(statement)} if keys else set()
        )

    async def abandoned(self, limit: int) -> list[Attempt]:
        """Name attempts whose lease has run out, the oldest first; none that this process goes on with."""
        columns = (attempts.c.tenant, attempts.c.document_id, attempts.c.generation)
        statement = sa.select(*columns).where(attempts.c.lease_until < self.now()).order_by(attempts.c.lease_until)
        rows = await self.database.read(statement.limit(limit + len(self._held)))
        found = [Attempt(DocumentKey(row.tenant, row.document_id), row.generation) for row in rows]
        return [attempt for attempt in found if attempt not in self._held][:limit]

    async def due(self, limit: int, *, within_s: float = 0.0) -> list[Garbage]:
        """Name garbage that may be collected, the oldest first; with ``within_s`` also what may be so soon.

        A deletion's mark stays as long as an attempt that it fences is open.
        """
        fenced = sa.exists().where(
            attempts.c.tenant == garbage.c.tenant,
            attempts.c.document_id == garbage.c.document_id,
            attempts.c.generation < garbage.c.tombstone,
        )
        statement = sa.select(garbage).where(garbage.c.not_before <= self.now() + within_s, ~fenced)
        rows = await self.database.read(statement.order_by(garbage.c.not_before).limit(limit))
        return [
            Garbage(DocumentKey(row.tenant, row.document_id), row.below, row.tombstone, row.not_before) for row in rows
        ]

    async def collected(self, found: Sequence[Garbage]) -> None:
        """Forget garbage that is gone; not where more has come to an entry since it was read."""
        matches = (
            garbage.c.tenant == sa.bindparam("its_tenant"),
            garbage.c.document_id == sa.bindparam("its_document_id"),
            garbage.c.below == sa.bindparam("its_below"),
            garbage.c.not_before == sa.bindparam("its_not_before"),
        )
        rows = [
            {
                "its_tenant": one.key.tenant,
                "its_document_id": one.key.document_id,
                "its_below": one.below,
                "its_not_before": one.not_before,
            }
            for one in found
        ]
        if rows:
            await self.database.write(lambda connection: connection.execute(garbage.delete().where(*matches), rows))

    async def close(self) -> None:
        """Let go of the database."""
        await self.database.close()

    async def _close(self, closed: Sequence[Attempt], thrown_away: Iterable[Garbage], collect_after_s: float) -> None:
        not_before = self.now() + collect_after_s
        rows = [
            _columns(one.key) | {"below": one.below, "tombstone": one.tombstone, "not_before": not_before}
            for one in thrown_away
            if one.below > FIRST_GENERATION  # before the first there is nothing
        ]

        statement = self.database.upsert(garbage)
        # What an attempt left that came to nothing and what the next one replaces are one entry: the last to be read.
        latest = {
            column.name: sa.case(
                (column >= statement.excluded[column.name], column), else_=statement.excluded[column.name]
            )
            for column in (garbage.c.tombstone, garbage.c.not_before)
        }
        added = statement.on_conflict_do_update(index_elements=list(garbage.primary_key), set_=latest)

        def write(connection: sa.Connection) -> None:
            if rows:
                connection.execute(added, rows)
            connection.execute(attempts.delete().where(*_IS_NAMED), [_named(attempt) for attempt in closed])

        if closed:
            await self.database.write(write)
        self.let_go(closed)


def journal_url(directory: Path) -> str:
    """Give the address of the journal in a data directory."""
    return f"sqlite:///{directory.absolute() / JOURNAL_FILE}"


def _columns(key: DocumentKey) -> dict[str, object]:
    return {"tenant": key.tenant, "document_id": key.document_id}


# Parameters are not named as columns are: an UPDATE would set those.
_IS_NAMED = (
    attempts.c.tenant == sa.bindparam("its_tenant"),
    attempts.c.document_id == sa.bindparam("its_document_id"),
    attempts.c.generation == sa.bindparam("its_generation"),
)


def _named(attempt: Attempt) -> dict[str, object]:
    tenant, document_id = attempt.key
    return {"its_tenant": tenant, "its_document_id": document_id, "its_generation": attempt.generation}
