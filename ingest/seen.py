"""Which place had a document first. Kept on disk, by hashes of their keys, so that millions need little memory."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from encoder.errors import StorageFull
from ingest.index.interface import DocumentKey

HASH_BYTES = 16


def hash_key(key: DocumentKey) -> bytes:
    """Hash which document it is: 16 bytes, of which no two documents have the same for all practical purposes."""
    return hashlib.blake2b("\0".join(key).encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


class FirstPlaces:
    """The places, of one run. In one thread at a time, which need not be the same one.

    :class:`StorageFull` where the disk holds no more.
    """

    def __init__(self, *, cache_kib: int) -> None:
        # A database without a name is a temporary file, gone with the connection.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{cache_kib}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (hash BLOB PRIMARY KEY, place TEXT) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def note(self, found: Iterable[tuple[bytes, str]]) -> int:
        """Note places of documents that have none yet; give how many those were."""
        with _on_disk():
            return self._database.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", found).rowcount

    def of(self, digest: bytes) -> str:
        """Give the place of a document that was noted."""
        with _on_disk():
            return str(self._database.execute("SELECT place FROM seen WHERE hash = ?", (digest,)).fetchone()[0])

    def close(self) -> None:
        """Forget all of them."""
        self._database.close()


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFull(f"The ids of documents cannot be kept in the temporary folder ({error}).") from None
