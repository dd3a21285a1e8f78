"""What is known of a folder that is followed: its files, and which documents each gave. In SQLite, so on disk.

Documents without a file are those that are to be taken out of the index.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from encoder.errors import InUse, StorageFull
from ingest.index.interface import DocumentKey
from ingest.watching.changes import KnownFile

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    name BLOB PRIMARY KEY, read TEXT NOT NULL, seen TEXT NOT NULL,
    seen_since REAL NOT NULL, changed_since REAL NOT NULL, missed INTEGER NOT NULL, yielded INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    tenant TEXT, document_id BLOB, file BLOB, reading INTEGER NOT NULL, since REAL, PRIMARY KEY (tenant, document_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS documents_of_files ON documents (file);
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TEMPORARY TABLE found (name BLOB PRIMARY KEY, signature TEXT NOT NULL) WITHOUT ROWID;
CREATE TEMPORARY TABLE due (name BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_COLUMNS = "read, seen, seen_since, changed_since, missed"


class FolderState:
    """The files and documents of one folder; threads take turns."""

    def __init__(self, path: Path, about: str) -> None:
        """Open the state, or make it. ``about`` says in an error what is followed.

        :class:`InUse` where another process follows the same; :class:`StorageFull` where it cannot be written.
        """
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(_TABLES)
            # What was read is compared with the index again: that may be another one by now.
            self._database.execute(
                "UPDATE files SET read = '', seen = '', seen_since = 0, changed_since = 0, missed = 1, yielded = 0"
            )
            self._database.execute("UPDATE documents SET reading = 0, since = 0")
        except sqlite3.OperationalError as error:
            self._database.close()
            if "locked" in str(error):
                raise InUse(f"{about} is followed by another process; end that one, or leave it to it.") from None
            raise StorageFull(f"{path}, which notes what is followed, cannot be written ({error}).") from None

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._database.close()

    @property
    def identity(self) -> str:
        """The folder at the last look that found files."""
        return next((str(row[0]) for row in self._rows("SELECT value FROM about WHERE name = 'identity'")), "")

    def keep_identity(self, identity: str) -> None:
        """Note which folder it is."""
        with self._writing() as database:
            database.execute("INSERT OR REPLACE INTO about VALUES ('identity', ?)", (identity,))

    def look(self, found: Iterable[tuple[str, str]]) -> int:
        """Take a listing, names and signatures, in place of the last one; count it."""
        with self._writing() as database:
            database.execute("DELETE FROM found")
            database.execute("DELETE FROM due")
            rows = ((_bytes(name), signature) for name, signature in found)
            database.executemany("INSERT OR REPLACE INTO found VALUES (?, ?)", rows)
            return int(database.execute("SELECT count(*) FROM found").fetchone()[0])

    def differing(self) -> Iterator[tuple[str, KnownFile | None, str]]:
        """Give the files that are not as they were read: name, what is known, signature now (empty: not listed)."""
        rows = self._rows(
            f"SELECT found.name, found.signature, {_COLUMNS} FROM found LEFT JOIN files USING (name) "  # noqa: S608 - ours
            "WHERE files.name IS NULL OR files.read != found.signature "
            f"UNION ALL SELECT name, '', {_COLUMNS} FROM files WHERE name NOT IN (SELECT name FROM found)"
        )
        for name, signature, read, seen, seen_since, changed_since, missed in rows:
            known = None if read is None else KnownFile(read, seen, seen_since, changed_since, missed=bool(missed))
            yield _text(name), known, signature

    def note(self, noted: Iterable[tuple[str, KnownFile]], due: Iterable[str]) -> None:
        """Keep what is known now of files that were found, and which of them are to be read."""
        rows = [(_bytes(name), f.read, f.seen, f.seen_since, f.changed_since) for name, f in noted]
        with self._writing() as database:
            database.executemany(
                "INSERT INTO files (name, read, seen, seen_since, changed_since, missed) VALUES (?, ?, ?, ?, ?, 0) "
                "ON CONFLICT (name) DO UPDATE SET read = excluded.read, seen = excluded.seen, missed = 0, "
                "seen_since = excluded.seen_since, changed_since = excluded.changed_since",
                rows,
            )
            database.executemany("INSERT INTO due VALUES (?)", ((_bytes(name),) for name in due))

    def take_due(self, limit: int) -> list[tuple[str, str]]:
        """Take some files that are to be read out of their queue, each with its signature, by their names."""
        with self._writing() as database:
            rows = database.execute(
                "SELECT name, seen FROM due JOIN files USING (name) ORDER BY name LIMIT ?", (limit,)
            )
            taken = rows.fetchall()
            database.executemany("DELETE FROM due WHERE name = ?", [(name,) for name, _ in taken])
        return [(_text(name), signature) for name, signature in taken]

    def forget(self, names: Iterable[str], now: float) -> None:
        """Let files go, and leave their documents without one."""
        with self._writing() as database:
            for name in map(_bytes, names):
                _leave(database, "file = ?", (name,), now)
                database.execute("DELETE FROM files WHERE name = ?", (name,))

    def claim(self, key: DocumentKey, name: str, reading: int) -> str:
        """Note that a file gives a document in a reading; name the file that has it already, if one has."""
        stored = (key.tenant, _bytes(key.document_id))
        with self._writing() as database:
            owner = database.execute(
                "SELECT file, reading FROM documents JOIN files ON name = file "
                "WHERE tenant = ? AND document_id = ? AND NOT missed",
                stored,
            ).fetchone()
            if owner and owner[1] > reading:
                return ""  # of a reading that was given up, and goes on for a while: nobody takes what it gives
            if owner and (_text(owner[0]) != name or owner[1] == reading):
                # Should that file lose it, this one is read again.
                database.execute("UPDATE files SET yielded = 1 WHERE name = ?", (_bytes(name),))
                return _text(owner[0])
            database.execute(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, NULL)", (*stored, _bytes(name), reading)
            )
            return ""

    def settle(self, read: Iterable[tuple[str, str]], whole: Iterable[str], reading: int, now: float) -> None:
        """Note that files are in the index as their signatures say.

        Of those that were read without an error, documents of earlier readings that did not come again are left without
        a file.
        """
        with self._writing() as database:
            rows = [(signature, _bytes(name)) for name, signature in read]
            database.executemany("UPDATE files SET read = ? WHERE name = ?", rows)
            for name in whole:
                _leave(database, "file = ? AND reading != ?", (_bytes(name), reading), now)

    def files_of(self, document_id: str) -> set[str]:
        """Name the files that gave documents of an id, of any tenant."""
        rows = self._rows("SELECT file FROM documents WHERE document_id = ? AND file IS NOT NULL", _bytes(document_id))
        return {_text(row[0]) for row in rows}

    def without_file(self, before: float, limit: int) -> list[DocumentKey]:
        """Name documents that have been without a file since ``before``, or since an earlier run."""
        rows = self._rows(
            "SELECT tenant, document_id FROM documents WHERE file IS NULL AND since <= ? LIMIT ?", before, limit
        )
        return [DocumentKey(tenant, _text(document_id)) for tenant, document_id in rows]

    def deleted(self, key: DocumentKey) -> None:
        """Forget a document that is out of the index."""
        with self._writing() as database:
            row = (key.tenant, _bytes(key.document_id))
            database.execute("DELETE FROM documents WHERE tenant = ? AND document_id = ? AND file IS NULL", row)

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def _leave(database: sqlite3.Connection, where: str, values: tuple[object, ...], now: float) -> None:
    """Leave documents without a file; files that had to yield to another one may have them now."""
    statement = f"UPDATE documents SET file = NULL, since = ? WHERE {where}"  # noqa: S608 - ours
    if database.execute(statement, (now, *values)).rowcount:
        database.execute("UPDATE files SET read = '', yielded = 0 WHERE yielded")


def _bytes(name: str) -> bytes:
    """Store a name: those of files may hold bytes that are no text."""
    return name.encode("utf-8", "surrogatepass")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
