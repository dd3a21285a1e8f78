"""Which row has a document's id: of several rows with one id, over all parts of a load, one is loaded.

Ids are kept on disk as hashes, so that memory does not grow with their number.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence

from encoder.errors import StorageFull
from ingest.index.interface import DocumentKey

HASH_BYTES = 16
CACHE_KIB = 65_536


def hash_key(key: DocumentKey) -> bytes:
    """Hash which document it is: 16 bytes, of which no two documents have the same for all practical purposes."""
    return hashlib.blake2b("\0".join(key).encode(), digest_size=HASH_BYTES).digest()


class SeenKeys:
    """The documents that have a row. In one thread."""

    def __init__(self) -> None:
        # A database without a name is a temporary file, gone with the connection.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (hash BLOB PRIMARY KEY, place TEXT) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def add(self, hashes: Iterable[bytes]) -> None:
        """Note documents of which it does not matter where they came from: parts that are finished."""
        self._execute("INSERT OR IGNORE INTO seen VALUES (?, 'a part that is finished')", ((one,) for one in hashes))

    def claim(self, claims: Sequence[tuple[bytes, str]]) -> list[str]:
        """For each hash and place say which other place has the document; empty where this one has it."""
        self._execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", claims)
        owners = [
            str(self._database.execute("SELECT place FROM seen WHERE hash = ?", (one,)).fetchone()[0])
            for one, _ in claims
        ]
        return ["" if owner == place else owner for owner, (_, place) in zip(owners, claims, strict=True)]

    def close(self) -> None:
        """Forget all of them."""
        self._database.close()

    def _execute(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        try:
            self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            raise StorageFull(f"The ids of this load cannot be kept in the temporary folder ({error}).") from None
