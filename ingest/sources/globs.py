"""Patterns for files: ``docs/**/*.md``. Knows the walk through a folder, and what of it a pattern names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

from ingest.files import FoundFile, failure, walk
from ingest.receipts import LoadError

_MAGIC = re.compile(r"[*?\[]")
ANY_FOLDERS = "**"


def is_pattern(path: str) -> bool:
    """Say whether a path has characters of patterns; a file of that very name goes first, and is for the caller."""
    return bool(_MAGIC.search(path))


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """Part a pattern into the folder before its first special character, and the segments from there on."""
    segments = pattern.split("/")
    first = next(index for index, segment in enumerate(segments) if _MAGIC.search(segment))
    return "/".join(segments[:first]), segments[first:]


def matches(name: str, segments: list[str]) -> bool:
    """Say whether a name is of a pattern: ``**`` is any number of folders, none included; the others are one name each.

    All ways to read ``**`` are followed at once, so that many of them cost no more than one.
    """
    reached = _skip_folders({0}, segments)
    for part in name.split("/"):
        following = {place for place in reached if place < len(segments) and segments[place] == ANY_FOLDERS}
        following |= {
            place + 1
            for place in reached
            if place < len(segments) and segments[place] != ANY_FOLDERS and fnmatch.fnmatchcase(part, segments[place])
        }
        reached = _skip_folders(following, segments)
    return len(segments) in reached


def _skip_folders(places: set[int], segments: list[str]) -> set[int]:
    skipped = set(places)
    for place in places:
        while place < len(segments) and segments[place] == ANY_FOLDERS:
            place += 1
            skipped.add(place)
    return skipped


def find_matches(pattern: str) -> Iterator[FoundFile | LoadError]:
    """Find the files that a pattern names, in the order of their names, hidden ones left out.

    A name is relative to the folder before the first special character: ``docs/**/*.md`` finds ``guide/a.md``.
    """
    start, segments = split_pattern(pattern)
    root = Path(start or ("/" if pattern.startswith("/") else "."))
    depth_max = None if ANY_FOLDERS in segments else len(segments)
    empty = True
    if root.is_dir():
        for found in walk(root, lambda name: matches(name, segments), depth_max):
            empty = False
            yield found
    if empty:
        yield failure(Path(pattern), f"{pattern} names no file; correct the pattern.")
