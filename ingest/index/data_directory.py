"""The directory of an embedded index: who holds it, what made it, how much room is left. Knows no engine."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import IO, Self

import pydantic

from encoder.errors import FingerprintMismatch, IndexUnavailable, InUse, InvalidInput, StorageFull
from ingest.index.points import FORMAT_VERSION

MANIFEST_FILE = "index.json"
LOCK_FILE = "lock"
ENGINE_PREFIX = "engine-"
# The engine writes through memory maps: on a full disk it is killed by SIGBUS, so it must never meet one.
OPEN_BYTES_MIN = 64 * 1024 * 1024
WRITE_BYTES_MIN = 256 * 1024 * 1024


class Manifest(pydantic.BaseModel):
    """What made the index, and which of the engine's folders is the living one."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    fingerprint: str
    dimension: int = pydantic.Field(ge=1)
    engine_number: int = pydantic.Field(default=1, ge=1)
    optimized_points: int = pydantic.Field(default=0, ge=0)


class DataDirectory:
    """A directory held by this process alone, until :meth:`release` or the process's end."""

    def __init__(self, path: Path, lock: IO[str], write_bytes_min: int) -> None:
        self.path = path
        self._lock = lock
        self._write_bytes_min = write_bytes_min

    @classmethod
    def hold(cls, path: Path, *, write_bytes_min: int = WRITE_BYTES_MIN) -> Self:
        """Make the directory where it is missing, and lock it.

        :class:`InvalidInput` where it is a file; :class:`InUse` where another process holds it;
        :class:`IndexUnavailable` where it cannot be written; :class:`StorageFull` where less than 64 MiB are free.
        """
        check_not_a_file(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / LOCK_FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise IndexUnavailable(
                f"Data directory {path} cannot be used ({error.strerror}); give a directory that you may write."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise InUse(
                f"Data directory {path} is held by another process ({holder}); stop that one, ask it through the "
                "service instead, or give another directory."
            ) from error
        held = cls(path, lock, write_bytes_min)
        try:
            held.check_space(min(OPEN_BYTES_MIN, write_bytes_min), "opened")
            lock.truncate(0)
            lock.write(f"pid {os.getpid()}\n")
            lock.flush()
        except BaseException:
            held.release()
            raise
        return held

    def bind(self, *, fingerprint: str, dimension: int) -> Manifest:
        """Check what made the index; a new one is written down before its engine exists."""
        found = read_manifest(self.path)
        if found is None:
            if any(self.path.glob(f"{ENGINE_PREFIX}*")):
                raise IndexUnavailable(
                    f"{self.path / MANIFEST_FILE} is missing though the index's data is there; restore that file from "
                    "a backup, or delete the directory and ingest again."
                )
            self.check_write()
            found = Manifest(fingerprint=fingerprint, dimension=dimension)
            self.write_manifest(found)
        check_made_by(found, self.path, fingerprint=fingerprint, dimension=dimension)
        return found

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest, at once or not at all."""
        replace_file(self.path / MANIFEST_FILE, f"{manifest.model_dump_json(indent=2)}\n".encode())

    def engine_folder(self, number: int) -> Path:
        """Name one of the engine's folders."""
        return self.path / f"{ENGINE_PREFIX}{number}"

    def remove_engines(self, *, keep: int) -> None:
        """Delete what an interrupted optimization or creation left."""
        for folder in self.path.glob(f"{ENGINE_PREFIX}*"):
            if folder != self.engine_folder(keep):
                shutil.rmtree(folder)

    def adopt(self, draft: Path) -> None:
        """Let the index of another directory, on the same file system and open nowhere, be the one of this directory.

        Until the manifest is replaced this directory has its own index, and the other one is whole, whatever happens.
        """
        old, new = read_manifest(self.path), read_manifest(draft)
        if old is None or new is None:
            raise IndexUnavailable(f"{self.path} or {draft} holds no index; nothing was changed.")
        folder = self.engine_folder(old.engine_number + 1)
        shutil.rmtree(folder, ignore_errors=True)
        # Two names for the same files, of which one goes at the end: nothing is copied.
        shutil.copytree(draft / f"{ENGINE_PREFIX}{new.engine_number}", folder, copy_function=os.link)
        sync_tree(folder)
        sync_file(self.path)
        self.write_manifest(new.model_copy(update={"engine_number": old.engine_number + 1}))
        self.remove_engines(keep=old.engine_number + 1)

    def check_write(self) -> None:
        """Raise :class:`StorageFull` before the disk is full."""
        self.check_space(self._write_bytes_min, "written")

    def check_copy(self, folder: Path) -> None:
        """Raise :class:`StorageFull` where a copy of a folder would fill the disk."""
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        self.check_space(self._write_bytes_min + size, "optimized")

    def check_space(self, bytes_min: int, verb: str) -> None:
        """Raise :class:`StorageFull` where less than ``bytes_min`` are free."""
        free = shutil.disk_usage(self.path).free
        if free < bytes_min:
            raise StorageFull(
                f"The disk of {self.path} has {free >> 20} MiB free; the index is not {verb} below {bytes_min >> 20} "
                "MiB. Free some space and try again."
            )

    def release(self) -> None:
        """Let go of the lock."""
        self._lock.close()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, or another content in its place, at once or not at all, also where the power goes."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_file(path.parent)


def sync_file(path: Path) -> None:
    """Have a file, or the names in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Have a folder and all that is in it survive a loss of power."""
    for path in folder.rglob("*"):
        sync_file(path)
    sync_file(folder)


def check_not_a_file(path: Path) -> None:
    """Raise :class:`InvalidInput` where a file is in the place of the data directory, or of one that it lies in."""
    for place in (path, *path.parents):
        if os.path.isfile(place):  # noqa: PTH113 - Path.is_file raises where it may not look
            raise InvalidInput("data_dir", f"data_dir {place} is a file; give a directory.")


def check_made_by(manifest: Manifest, path: Path, *, fingerprint: str, dimension: int) -> None:
    """Raise :class:`FingerprintMismatch` where another model or chunker made the index in ``path``."""
    if (manifest.fingerprint, manifest.dimension) != (fingerprint, dimension):
        raise FingerprintMismatch(
            f"Data directory {path} was made with {manifest.fingerprint} (dimension {manifest.dimension}), but "
            f"{fingerprint} (dimension {dimension}) is in use; use that model, or give a new directory and ingest "
            "again."
        )


def read_manifest(path: Path) -> Manifest | None:
    """Read what made the index in a directory; None where there is none. :class:`InvalidInput` where it is a file."""
    check_not_a_file(path)
    file = path / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IndexUnavailable(f"{file} cannot be read ({error.strerror}); correct its permissions.") from error
    except (ValueError, pydantic.ValidationError) as error:
        raise IndexUnavailable(
            f"{file} is corrupt; restore it from a backup, or delete the directory and ingest again."
        ) from error
    if manifest.format_version != FORMAT_VERSION:
        raise IndexUnavailable(
            f"{file} has format {manifest.format_version}; this version reads {FORMAT_VERSION}. Use the version of "
            "mamba-search that made it, or ingest again into a new directory."
        )
    return manifest
