"""From what a user names to the files that it means: paths, folders, patterns, repositories, URLs. Reads no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from encoder.errors import InvalidInput
from ingest.files import FoundFile, find_files
from ingest.receipts import LoadError
from ingest.sources.buckets import find_objects
from ingest.sources.globs import find_matches, is_pattern, split_pattern
from ingest.sources.policy import BUCKET_SCHEMES, WEB_SCHEMES, SourcePolicy, check_source, local_path, split_url
from ingest.sources.repository import find_tracked, is_repository
from ingest.sources.web import fetched

STDIN = "-"  # in place of a path


def find_sources(source: str, policy: SourcePolicy, skipped: Counter[str]) -> Iterator[FoundFile | LoadError]:
    """Find what a path, a pattern or a URL names; a file holds until the next one is asked for.

    What the policy does not allow is one :class:`LoadError`. Files of a repository that are no text are counted in
    ``skipped``, by the reason.
    """
    try:
        scheme, _ = split_url(source)
        if scheme in WEB_SCHEMES:
            with fetched(source, policy) as file:
                yield file
        elif scheme in BUCKET_SCHEMES:
            check_source(source, policy)
            yield from find_objects(source)
        else:
            yield from _find_local(source, policy, skipped)
    except InvalidInput as error:
        yield LoadError(source, error)


def is_local(source: str) -> bool:
    """Say whether a source is of this machine, so that looking for its files costs little."""
    return "://" not in source or source.lower().startswith("file:")


def _find_local(source: str, policy: SourcePolicy, skipped: Counter[str]) -> Iterator[FoundFile | LoadError]:
    is_url = "://" in source
    if not is_url and is_pattern(source) and not _exists(Path(source)):
        check_source(split_pattern(source)[0] or ("/" if source.startswith("/") else "."), policy)
        yield from find_matches(source)
        return
    check_source(source, policy)
    path = local_path(source)
    if _exists(path) and is_repository(path):
        yield from find_tracked(path, skipped)
    else:
        yield from find_files(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a circle of links, a name that is too long
        return False
