"""The key file on disk: changed by one at a time, read again when it changes, and never given up for a broken one."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydantic

from encoder.errors import InvalidInput, NotFound, StorageFull
from services.door.file_mark import file_mark
from services.door.keys import KeyEntry, KeyFile, Keys, KeyWishes, make_entry

FILE_BYTES_MAX = 16 * 1024 * 1024
# How often a process looks whether the file has changed; a revoked key is refused after so long at the latest.
LOOK_PERIOD_S = 1.0

logger = logging.getLogger(__name__)


class KeyRing:
    """The keys that are good now. Looks at the file as it is asked, at most once in ``LOOK_PERIOD_S``."""

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        """Read the file; :class:`InvalidInput` where it cannot be."""
        self._path, self._now = path, now
        self._seen = file_mark(path)
        self._keys = Keys(read_key_file(path))
        self._looked_at = now()

    def keys(self) -> Keys:
        """Give the keys of the file as it is; those of its last good version where it is broken or gone."""
        if self._now() - self._looked_at >= LOOK_PERIOD_S:
            self._looked_at = self._now()
            self._look()
        return self._keys

    def _look(self) -> None:
        mark = file_mark(self._path)
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._keys = Keys(read_key_file(self._path))
        except InvalidInput as error:
            logger.error("the keys stay as they were: %s", error)  # noqa: TRY400 - the message says all
        else:
            logger.info("read %s again: its keys are good from now on", self._path)


def read_key_file(path: Path) -> KeyFile:
    """Read a key file; :class:`InvalidInput` says what is wrong with it, and quotes none of it."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput("keys_file", f"keys_file {path} cannot be read ({error.strerror}).") from None
    if len(data) > FILE_BYTES_MAX:
        raise InvalidInput("keys_file", f"keys_file {path} has over {FILE_BYTES_MAX} bytes, which is the limit.")
    try:
        return KeyFile.model_validate_json(data)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InvalidInput("keys_file", f"keys_file {path} is broken at {place}: {first['msg']}.") from None


def create_key(path: Path, wishes: KeyWishes) -> tuple[KeyEntry, str | None]:
    """Add an entry to the file, which is made where there is none; give it and its key."""
    entry, key = make_entry(wishes)
    with _changing(path) as file:
        try:
            changed = KeyFile(keys=(*file.keys, entry))
        except pydantic.ValidationError as error:
            message = f"{entry.name!r} cannot be added to {path}: {error.errors()[0]['msg']}."
            raise InvalidInput("certificate", message) from None
        _write(path, changed)
    return entry, key


def revoke_key(path: Path, key_id: str) -> KeyEntry:
    """Take an entry out of the file; :class:`NotFound` where there is none of this id."""
    with _changing(path) as file:
        found = next((entry for entry in file.keys if entry.id == key_id), None)
        if found is None:
            raise NotFound(
                f"There is no key {key_id[:40]!r} in {path}; `mamba-search keys list` shows those there are."
            )
        _write(path, KeyFile(keys=tuple(entry for entry in file.keys if entry is not found)))
    return found


@contextmanager
def _changing(path: Path) -> Iterator[KeyFile]:
    """Hold the file against others that change it, and give it as it is; an empty one where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InvalidInput("keys_file", f"keys_file {path} cannot be written ({error.strerror}).") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield read_key_file(path) if path.exists() else KeyFile(keys=())
    finally:
        os.close(lock)


def _write(path: Path, file: KeyFile) -> None:
    """Replace the file in one step, readable by its owner alone; the old one's mode and owner stay where possible."""
    data = file.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"
    number, name = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as target:
            if path.exists():
                os.fchmod(number, path.stat().st_mode & 0o777)
            target.write(data)
            target.flush()
            os.fsync(number)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise StorageFull(f"keys_file {path} was not changed ({error.strerror}).") from None
