"""Reads files of one JSON object a line, plain or compressed; a fault is named by its file, line and field.

Knows no model, and nothing of what the rows mean.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from encoder.errors import InvalidInput

Row = Mapping[str, object]
SUFFIXES = (".jsonl", ".jsonl.xz", ".jsonl.gz")


def read_lines(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """Yield each line that is not blank with its place for messages: ``corpus.jsonl line 7``.

    ``.xz`` and ``.gz`` are unpacked on the way. :class:`InvalidInput` carries ``field`` and names the file where it
    cannot be read, is not UTF-8, or ends in the middle of its compressed data.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, data in enumerate(file, start=1):
                line = data.decode("utf-8")
                if line.strip():
                    yield f"{path} line {number}", line
    except UnicodeDecodeError as error:
        raise InvalidInput(field, f"{path} line {number} is not UTF-8; convert the file.") from error
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        kind = path.suffix.removeprefix(".")
        raise InvalidInput(field, f"{path} is not a whole {kind} file ({error}); fetch it again.") from error
    except OSError as error:
        raise InvalidInput(field, f"{path} cannot be read ({error.strerror}).") from error


def read_rows(path: Path, field: str) -> Iterator[tuple[str, Row]]:
    """Yield each line's JSON object with its place; errors as :func:`read_lines`, and where a line is no object."""
    for place, line in read_lines(path, field):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidInput(field, f"{place} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise InvalidInput(field, f"{place} is not a JSON object.")
        yield place, row


def string_of(row: Row, key: str, place: str, default: str | None = None) -> str:
    """Take a string out of a row; :class:`InvalidInput` names ``key`` where it is missing or something else."""
    value = row.get(key, default)
    if not isinstance(value, str):
        found = "missing" if key not in row else json.dumps(value)[:60]
        raise InvalidInput(key, f"{place}: {key} is {found}; it must be a string.")
    return value


def list_of(row: Row, key: str, place: str) -> list[object]:
    """Take a list out of a row (empty where the key is missing); :class:`InvalidInput` where it is something else."""
    value = row.get(key, [])
    if not isinstance(value, list):
        raise InvalidInput(key, f"{place}: {key} is {json.dumps(value)[:60]}; it must be a list.")
    return value


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".xz":
        return lzma.open(path)
    if path.suffix == ".gz":
        return gzip.open(path)
    return path.open("rb")
