"""A folder that is followed: looked at as a whole, compared with what is known, and read where it differs.

What the operating system tells of single changes is only a reason to look: so a file that is renamed, a folder that is
moved in, an edited .gitignore and a change that nobody told of all come to the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from encoder.errors import InvalidInput
from ingest.documents import Document
from ingest.files import FoundFile, found_file, has_known_suffix, walk
from ingest.index.interface import DocumentKey
from ingest.loaders import load_file
from ingest.loading.parsing import ParsingProcess
from ingest.receipts import LoadError
from ingest.sources.repository import is_repository, list_tracked, tracked_file
from ingest.watching.changes import PATIENCE_S, Action, KnownFile, decide, next_look
from ingest.watching.hints import identity_of
from ingest.watching.state import FolderState

ERRORS_MAX = 1000  # of one look that are told
FIRST_LOOK = -1e9  # seconds of the run: all that is there at the start has long been as it is


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the folder found."""

    is_away: bool = False  # the folder is not there, or another and empty one is in its place: nothing is deleted
    is_waiting: bool = False  # files have just changed, and are to be read soon
    errors: tuple[LoadError, ...] = ()  # that the look before did not have


@dataclass(slots=True)
class Reading:
    """Some files that are read together."""

    number: int
    files: Sequence[tuple[str, str]]  # names and signatures
    broken: set[str]  # those with an error: what they gave before stays
    again: set[str]  # those with a document that could not be ingested for a passing reason


class WatchedFolder:
    """A folder, its state, and what is to be done about it. Its methods wait for the disk."""

    def __init__(self, root: Path, state: FolderState, *, prune: bool = False) -> None:
        """With ``prune``, files that vanished since an earlier run are gone; without, their documents stay."""
        self.root = root
        self._state = state
        self._prune = prune
        self._told: set[tuple[str, str]] = set()  # what the last look found that could not be read
        self._looks = 0
        self._readings = 0

    def look(self, now: float) -> Look:
        """List the folder at ``now`` (seconds of the run) and compare; what is to be read waits in a queue on disk."""
        identity = identity_of(self.root)
        if not identity:
            return Look(is_away=True)
        errors: list[LoadError] = []
        count = self._state.look(self._list(errors))
        if not count and identity != self._state.identity != "":
            return Look(is_away=True)
        if count:
            self._state.keep_identity(identity)
        self._looks += 1
        # Where there are more than can be kept, any of what is missing may be below one of them.
        hidden = [error.source for error in errors] if len(errors) < ERRORS_MAX else [str(self.root)]
        seen_at = FIRST_LOOK if self._looks == 1 else now
        noted: list[tuple[str, KnownFile]] = []
        due, gone = [], []
        is_waiting = False
        for name, known, signature in self._state.differing():
            if signature:
                known = next_look(known, signature, seen_at)
                noted.append((name, known))
            assert known is not None
            is_hidden = not signature and self._is_hidden(name, hidden)
            action = decide(known, now, found=bool(signature), hidden=is_hidden, prune=self._prune)
            if action is Action.READ:
                due.append(name)
            elif action is Action.FORGET:
                gone.append(name)
            is_waiting = is_waiting or action is Action.WAIT
        self._state.note(noted, due)
        self._state.forget(gone, now)
        new = tuple(error for error in errors if (error.source, str(error.error)) not in self._told)
        self._told = {(error.source, str(error.error)) for error in errors}
        return Look(is_waiting=is_waiting, errors=new)

    def next_reading(self, files_max: int) -> Reading | None:
        """Take files that are to be read; None where there are none left."""
        files = self._state.take_due(files_max)
        self._readings += 1
        return Reading(self._readings, files, set(), set()) if files else None

    def read(self, reading: Reading) -> Iterator[Document | LoadError]:
        """Read files; a document that another file of the folder has given already is refused."""
        describe = tracked_file if is_repository(self.root) else found_file
        with ParsingProcess() as parser:
            for name, signature in reading.files:
                size = int(signature.partition(":")[0])
                for item in load_file(describe(self.root / name, name, size), parser):
                    found = self._claim(item, name, reading) if isinstance(item, Document) else item
                    if isinstance(found, LoadError):
                        reading.broken.add(name)
                    yield found

    def set_aside(self, reading: Reading, document_id: str) -> None:
        """Say that a document could not be ingested for a passing reason: its file is read again."""
        reading.again |= self._state.files_of(document_id)

    def settle(self, reading: Reading, now: float) -> None:
        """Say that all documents of a reading have their receipts."""
        read = [(name, signature) for name, signature in reading.files if name not in reading.again]
        whole = [name for name, _ in read if name not in reading.broken]
        self._state.settle(read, whole, reading.number, now)

    def deletions(self, look: Look, now: float, limit: int) -> list[DocumentKey]:
        """Name documents to take out. As long as files are about to be read, they wait: one may have been renamed."""
        return self._state.without_file(now - PATIENCE_S if look.is_waiting else now, limit)

    def deleted(self, key: DocumentKey) -> None:
        """Say that a document is out of the index."""
        self._state.deleted(key)

    def _list(self, errors: list[LoadError]) -> Iterator[tuple[str, str]]:
        for found in (
            list_tracked(self.root, Counter()) if is_repository(self.root) else walk(self.root, has_known_suffix)
        ):
            if isinstance(found, FoundFile):
                if signature := _signature(self.root / found.name):
                    yield found.name, signature
            elif len(errors) < ERRORS_MAX:
                errors.append(found)

    def _is_hidden(self, name: str, places: list[str]) -> bool:
        """Say whether a file that was not listed may be there all the same."""
        path = self.root / name
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return True
        return any(path.is_relative_to(place) for place in places)

    def _claim(self, document: Document, name: str, reading: Reading) -> Document | LoadError:
        key = DocumentKey(document.tenant, document.document_id)
        owner = self._state.claim(key, name, reading.number)
        if not owner:
            return document
        message = (
            f"{document.source} has the same document_id, {document.document_id!r}, as one of {self.root / owner}; "
            "give it another."
        )
        return LoadError(document.source, InvalidInput("document_id", message))


def _signature(path: Path) -> str:
    """Say in what state a file is: its size in bytes first; empty where it has just vanished."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
