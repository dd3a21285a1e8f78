"""Finding the files of a folder: sorted, hidden ones left out, and nothing that lies outside it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from encoder.errors import InvalidInput
from ingest.receipts import LoadError


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file."""

    path: Path
    name: str  # relative to the folder given, with slashes; of a file given by itself, its name
    size: int  # bytes


def find_files(path: Path, suffixes: frozenset[str]) -> Iterator[FoundFile | LoadError]:
    """Find a file, or those of a folder (and of its folders) whose suffixes are among ``suffixes``.

    A :class:`LoadError` stands for a path that does not exist, that may not be read, or that is neither file nor
    folder, for a folder without any such file, and for a link that leads out of the folder.
    """
    try:
        status = path.stat()
    except OSError as error:
        yield _failure(path, f"{path} cannot be read ({error.strerror}); correct the path or its permissions.")
        return
    if stat.S_ISREG(status.st_mode):
        yield FoundFile(path, path.name, status.st_size)
    elif stat.S_ISDIR(status.st_mode):
        empty = True
        for found in _walk(path, suffixes):
            empty = False
            yield found
        if empty:
            kinds = ", ".join(sorted(suffixes))
            yield _failure(path, f"{path} holds no file to read ({kinds}); give another folder, or files by name.")
    else:
        yield _failure(path, f"{path} is neither a file nor a folder; give one of these.")


def _walk(root: Path, suffixes: frozenset[str]) -> Iterator[FoundFile | LoadError]:
    """Go through a folder; a link to a folder is not followed, so that there is no way out and no circle."""
    inside = root.resolve()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        wanted = path.suffix.lower() in suffixes
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                wanted = True
                if path == root or not path.is_symlink():
                    children = sorted(path.iterdir(), key=lambda child: child.name, reverse=True)
                    waiting.extend(child for child in children if not child.name.startswith("."))
                    continue
        except OSError as error:
            # A broken link to a file that would not be read anyway is nobody's loss.
            if wanted:
                yield _failure(path, f"{path} cannot be read ({error.strerror}).")
            continue
        if wanted and path != root and path.is_symlink() and not path.resolve().is_relative_to(inside):
            yield _failure(path, f"{path} is a link that leads out of {root}; give what it leads to by name.")
        elif wanted and stat.S_ISREG(status.st_mode):
            yield FoundFile(path, path.relative_to(root).as_posix(), status.st_size)


def _failure(path: Path, message: str) -> LoadError:
    return LoadError(str(path), InvalidInput("paths", message))
