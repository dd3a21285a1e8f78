"""Stored states of the encoder: where it stood in a document that may grow, so that it can read on from there.

A cache in a folder, bounded in bytes and in time: what is missing, damaged or of something else counts as not there,
and costs reading the document anew. A file is a line of JSON, which says what was read, and the state as the encoder
gave it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingest.index.data_directory import WRITE_BYTES_MIN
from ingest.index.interface import DocumentKey

logger = logging.getLogger(__name__)

STATES_FOLDER = "states"
_FORMAT = "mamba-search-document-state/1"
_SUFFIX = ".state"


@dataclass(frozen=True, slots=True)
class ReadSoFar:
    """What an encoder has read of a document: all chunks of one version."""

    key: DocumentKey
    generation: int
    fingerprint: str  # of the index: of the model, the chunker and the way of encoding
    chunk_count: int
    char_end: int  # of the last chunk; a version that has only blanks more is read alike


class StateStore:
    """States in one folder; several, also in other processes, may share it. Blocks: call it in a thread.

    No method raises: a state that cannot be written or read is not there.
    """

    def __init__(self, folder: Path, *, bytes_max: int, keep_s: float, now: Callable[[], float] = time.time) -> None:
        """Keep at most ``bytes_max`` in the folder, the least recently used go first; none unused for ``keep_s``."""
        self._folder = folder
        self._bytes_max = bytes_max
        self._keep_s = keep_s
        self._now = now

    def save(self, read: ReadSoFar, state: bytes, *, keep: int) -> None:
        """Keep a state; of the document's others only that of the generation ``keep``, which is visible until then."""
        data = _first_line(read, state)
        path = self._path(read.key, read.generation)
        draft = path.with_name(f"{uuid.uuid4().hex}.new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove(read.key, keep=keep)
            if not self._make_room(len(data) + len(state)):
                return
            try:
                with draft.open("wb") as file:
                    file.write(data)
                    file.write(state)
                self._touch(draft)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the state of %s is not kept (%s)", read.key.document_id, error.strerror)

    def load(self, read: ReadSoFar) -> bytes | None:
        """Give the state that was saved when just this had been read; None where there is none."""
        path = self._path(read.key, read.generation)
        try:
            if path.stat().st_mtime < self._now() - self._keep_s:
                return None
            with path.open("rb") as file:
                line = file.readline()
                state = file.read()
            if line != _first_line(read, state):
                return None
            self._touch(path)
        except OSError:
            return None
        return state

    def forget(self, key: DocumentKey) -> None:
        """Delete a document's states."""
        try:
            self._remove(key, keep=0)
        except OSError as error:
            logger.warning("the state of %s stays for now (%s)", key.document_id, error.strerror)

    def _path(self, key: DocumentKey, generation: int) -> Path:
        return self._folder / f"{_name(key)}-{generation}{_SUFFIX}"

    def _remove(self, key: DocumentKey, *, keep: int) -> None:
        for path in self._folder.glob(f"{_name(key)}-*{_SUFFIX}"):
            if path != self._path(key, keep):
                path.unlink(missing_ok=True)

    def _make_room(self, size: int) -> bool:
        """Delete what is too old, and what was used least recently until there is room; say whether there is."""
        files = [(path.stat(), path) for path in self._folder.iterdir()]
        files.sort(key=lambda file: file[0].st_mtime)
        total = size + sum(status.st_size for status, _ in files)
        for status, path in files:
            if total <= self._bytes_max and status.st_mtime >= self._now() - self._keep_s:
                break
            path.unlink(missing_ok=True)
            total -= status.st_size
        return total <= self._bytes_max and shutil.disk_usage(self._folder).free - size >= WRITE_BYTES_MIN

    def _touch(self, path: Path) -> None:
        os.utime(path, (self._now(), self._now()))


def open_states(data_dir: Path, *, bytes_max: int, keep_s: float) -> StateStore | None:
    """Give the states in a data directory; None where none are to be kept."""
    if not bytes_max or not keep_s:
        return None
    return StateStore(data_dir / STATES_FOLDER, bytes_max=bytes_max, keep_s=keep_s)


def _first_line(read: ReadSoFar, state: bytes) -> bytes:
    """Say what a file holds: it is compared as bytes, so that no damage is overlooked."""
    header = {
        "format": _FORMAT,
        "fingerprint": read.fingerprint,
        "tenant": read.key.tenant,
        "document_id": read.key.document_id,
        "generation": read.generation,
        "chunk_count": read.chunk_count,
        "char_end": read.char_end,
        "digest": _digest(state),
    }
    return json.dumps(header).encode() + b"\n"


def _name(key: DocumentKey) -> str:
    return hashlib.sha256(f"{key.tenant}/{key.document_id}".encode()).hexdigest()


def _digest(state: bytes) -> str:
    return hashlib.blake2b(state, digest_size=16).hexdigest()
