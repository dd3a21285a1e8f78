"""Which documents a run has seen. Keeps their ids on disk, as hashes: millions of them need little memory."""

from __future__ import annotations

import hashlib
import sqlite3

from encoder.errors import InvalidInput, StorageFull
from ingest.documents import Document

HASH_BYTES = 16
CACHE_KIB = 8192


class SeenDocuments:
    """The ids of documents, each with where it came from first."""

    def __init__(self) -> None:
        # A database without a name is a temporary file, gone with the connection. The run that reads documents may
        # go from thread to thread, but is in one at a time.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (hash BLOB PRIMARY KEY, source TEXT) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def close(self) -> None:
        """Forget all of them."""
        self._database.close()

    def add(self, document: Document) -> None:
        """Note a document; :class:`InvalidInput` names the source that gave one of this id before."""
        key = "\0".join((document.tenant, document.document_id)).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(key, digest_size=HASH_BYTES).digest()
        source = document.place.encode("utf-8", "replace").decode()
        try:
            new = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (digest, source)).rowcount
            if new:
                return
            (first,) = self._database.execute("SELECT source FROM seen WHERE hash = ?", (digest,)).fetchone()
        except sqlite3.Error as error:
            raise StorageFull(f"The ids of this run cannot be kept in the temporary folder ({error}).") from None
        if first == source:
            message = f"{source} was read before, as {document.document_id!r}; give it once."
        else:
            message = f"{source} has the same document_id, {document.document_id!r}, as {first}; give it another."
        raise InvalidInput("document_id", message)
