"""JSON lines into documents: one object a line with ``text``, maybe also an id, a title, metadata and more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from encoder.errors import InvalidInput
from ingest.documents import TEXT_BYTES_MAX, Document
from ingest.loading.rows import make_document
from ingest.loading.values import from_json
from ingest.receipts import LoadError

# Escapes may double a text's size; a line far beyond holds no acceptable document.
LINE_BYTES_MAX = 2 * TEXT_BYTES_MAX
_BOM = b"\xef\xbb\xbf"


def looks_like_json_lines(line: bytes) -> bool:
    """Say whether a line is a JSON object with a text."""
    try:
        row = json.loads(line.removeprefix(_BOM))
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "text" in row


def read_json_lines(
    stream: BinaryIO, source: str, *, name: str = "", first_line: bytes = b""
) -> Iterator[Document | LoadError]:
    """Read a stream; ``first_line`` has been read from it before. Blank lines are passed over.

    A line without an id is named after ``name`` (the source unless given) and its number: ``papers.jsonl:7``. A bad
    line is one :class:`LoadError` with its number and field.
    """
    number = 0
    while line := first_line or stream.readline(LINE_BYTES_MAX + 1):
        first_line = b""
        number += 1
        place = f"{source}:{number}"
        if len(line) > LINE_BYTES_MAX:
            skip_line(stream)
            yield too_long(place)
        elif line.strip():
            try:
                yield read_line(line, place, f"{name or source}:{number}")
            except InvalidInput as error:
                yield LoadError(place, error)


def skip_line(stream: BinaryIO) -> int:
    """Read to the end of the line; say how many bytes that were."""
    count = 0
    while rest := stream.readline(1 << 20):
        count += len(rest)
        if rest.endswith(b"\n"):
            break
    return count


def too_long(place: str) -> LoadError:
    """Refuse a line that is over the limit."""
    message = f"{place} has more than {LINE_BYTES_MAX} bytes, the limit of a line; split the document."
    return LoadError(place, InvalidInput("text", message))


def read_line(line: bytes, place: str, default_id: str) -> Document:
    """Read one line; :class:`InvalidInput` names ``place`` and the field that is wrong."""
    try:
        row = json.loads(line.removeprefix(_BOM).decode().rstrip())
    except UnicodeDecodeError as error:
        raise InvalidInput("text", f"{place} is not UTF-8 (byte {error.start} of the line); convert it.") from None
    except json.JSONDecodeError as error:
        raise InvalidInput("text", f"{place} is not JSON ({error.msg}, column {error.colno}); correct it.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput("text", f"{place} is not JSON that can be read ({error}); correct it.") from None
    if not isinstance(row, dict):
        raise InvalidInput("text", f'{place} is not a JSON object; write {{"text": …}}.')
    given = row.get("metadata")
    if given is not None and not isinstance(given, dict):
        raise InvalidInput("metadata", f"{place}: metadata is {json.dumps(given)[:60]}; it must be an object.")
    try:
        metadata = {name: from_json(f"metadata.{name}", value) for name, value in (given or {}).items()}
    except InvalidInput as error:
        raise InvalidInput(error.field, f"{place}: {error}") from None
    return make_document(row, metadata, place=place, default_id=default_id)
