"""Files of buckets: ``s3://`` and ``gs://``. Knows pyarrow's file systems, which find their keys as usual."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit, urlunsplit

from encoder.errors import InvalidInput
from ingest.files import FoundFile, has_known_suffix
from ingest.loading.kinds import SUFFIXES, kind_of
from ingest.receipts import LoadError
from ingest.sources.globs import is_pattern, matches, split_pattern

if TYPE_CHECKING:
    import pyarrow.fs as fs

_BUFFER_BYTES = 1 << 20


def find_objects(url: str) -> Iterator[FoundFile | LoadError]:
    """Find an object, those below a prefix whose endings are known, or those of a pattern, in the order of their names.

    The region and the keys are found as the provider's tools find them (environment, files, the machine's role); what
    follows ``?`` is for pyarrow: ``endpoint_override``, ``scheme``, ``region``.
    """
    try:
        found = list_objects(url)
        first = next(found, None)
        if first is None:
            kinds = ", ".join(sorted(SUFFIXES))
            yield _failure(url, f"{url} holds no file to read ({kinds}); correct it.")
            return
        yield first
        yield from found
    except ImportError:
        yield _failure(url, f"{url} needs pyarrow to be read; install it: pip install 'mamba-search[cloud]'.")
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own are of these
        yield _failure(url, f"{url} cannot be read ({str(error)[:300]}); correct it, or the keys.")


def list_objects(url: str) -> Iterator[FoundFile]:
    """Find the objects; raises what pyarrow raises."""
    import pyarrow.fs as fs

    system, path = open_system(url)
    path, segments = split_pattern(path) if is_pattern(path) else (path, [])
    if not segments and system.get_file_info(path).type == fs.FileType.File:
        yield _found(system, url, system.get_file_info(path), path.rpartition("/")[2])
        return
    waiting = [path.rstrip("/")]
    while waiting:
        # One level at a time: a bucket may hold more names than memory does.
        entries = system.get_file_info(fs.FileSelector(waiting.pop()))
        folders = []
        for entry in sorted(entries, key=lambda entry: entry.path):
            name = entry.path[len(path.rstrip("/")) + 1 :]
            if name.rpartition("/")[2].startswith("."):
                continue
            if entry.type == fs.FileType.Directory:
                folders.append(entry.path)
            elif matches(name, segments) if segments else has_known_suffix(name):
                yield _found(system, url, entry, name)
        waiting += reversed(folders)


def open_system(url: str) -> tuple[fs.FileSystem, str]:
    """Give the file system of a URL, and the path in it as it is written: nothing in it is decoded."""
    import pyarrow.fs as fs

    parts = urlsplit(url)
    system, bucket = fs.FileSystem.from_uri(urlunsplit((parts.scheme, parts.netloc, "", parts.query, "")))
    fragment = f"#{parts.fragment}" if parts.fragment else ""  # a name may hold that character
    return system, bucket.rstrip("/") + parts.path + fragment


def _found(system: Any, url: str, entry: Any, name: str) -> FoundFile:  # noqa: ANN401 - pyarrow comes without types
    source = f"{urlsplit(url).scheme}://{entry.path}"
    return FoundFile(source, name, entry.size, kind_of(name), partial(_open, system, entry.path), {"path": name})


def _open(system: Any, path: str) -> BinaryIO:  # noqa: ANN401
    # pyarrow's files have no lines of their own.
    return cast("BinaryIO", io.BufferedReader(system.open_input_file(path), _BUFFER_BYTES))


def _failure(url: str, message: str) -> LoadError:
    return LoadError(url, InvalidInput("paths", message))
