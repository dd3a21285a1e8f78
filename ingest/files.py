"""Finding the files of a folder: sorted, hidden ones left out, and nothing that lies outside it."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from encoder.errors import InvalidInput
from ingest.documents import MetadataValue
from ingest.loading.kinds import SUFFIXES, Kind, kind_of, suffix_of
from ingest.receipts import LoadError

# Says of a file, by its name relative to the folder, whether it is to be read.
Wanted = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be opened: of this machine, of a bucket, or from the web."""

    source: str  # where it is: a path or a URL
    name: str  # relative to the folder given, with slashes; of a file given by itself, its name
    size: int  # bytes
    kind: Kind
    open: Callable[[], BinaryIO]
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    title: str = ""  # of a document that names none; its name without the ending, unless said


def has_known_suffix(name: str) -> bool:
    """Say whether the ending tells what the file is."""
    return suffix_of(name) in SUFFIXES


def found_file(path: Path, name: str, size: int) -> FoundFile:
    """Describe a file of this machine by its path."""
    return FoundFile(path.as_posix(), name, size, kind_of(name), partial(open_file, path), {"path": name})


def open_file(path: Path) -> BinaryIO:
    """Open a file of this machine for reading."""
    return path.open("rb")


def find_files(path: Path) -> Iterator[FoundFile | LoadError]:
    """Find a file, or those of a folder (and of its folders) whose endings are known.

    A :class:`LoadError` stands for a path that does not exist, that may not be read, or that is neither file nor
    folder, for a folder without any such file, and for a link that leads out of the folder.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # the latter for a path that holds NUL
        yield failure(path, f"{path} cannot be read ({reason(error)}); correct the path or its permissions.")
        return
    if stat.S_ISREG(status.st_mode):
        yield found_file(path, path.name, status.st_size)
    elif stat.S_ISDIR(status.st_mode):
        empty = True
        for found in walk(path, has_known_suffix):
            empty = False
            yield found
        if empty:
            kinds = ", ".join(sorted(SUFFIXES))
            yield failure(path, f"{path} holds no file to read ({kinds}); give another folder, or files by name.")
    else:
        yield failure(path, f"{path} is neither a file nor a folder; give one of these.")


def walk(root: Path, wanted: Wanted, depth_max: int | None = None) -> Iterator[FoundFile | LoadError]:
    """Go through a folder; a link to a folder is not followed, so that there is no way out and no circle."""
    inside = root.resolve()
    waiting = [(root, 0)]
    while waiting:
        path, depth = waiting.pop()
        name = path.relative_to(root).as_posix()
        is_wanted = wanted(name)
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                is_wanted = depth_max is None or depth < depth_max
                if path == root or not path.is_symlink():
                    if is_wanted:
                        children = sorted(path.iterdir(), key=lambda child: child.name, reverse=True)
                        waiting.extend((child, depth + 1) for child in children if not child.name.startswith("."))
                    continue
        except OSError as error:
            # A broken link to a file that would not be read anyway is nobody's loss.
            if is_wanted:
                yield failure(path, f"{path} cannot be read ({reason(error)}).")
            continue
        if is_wanted and path != root and path.is_symlink() and not path.resolve().is_relative_to(inside):
            yield failure(path, f"{path} is a link that leads out of {root}; give what it leads to by name.")
        elif is_wanted and stat.S_ISREG(status.st_mode):
            yield found_file(path, name, status.st_size)


def reason(error: Exception) -> str:
    """Say in a few words why a file cannot be read."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def failure(path: Path, message: str) -> LoadError:
    """Refuse a path."""
    return LoadError(str(path), InvalidInput("paths", message))
