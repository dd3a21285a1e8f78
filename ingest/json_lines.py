"""JSON lines into documents: one object a line, with ``text``, and maybe an id, a title and a source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from encoder.errors import InvalidInput
from ingest.documents import TEXT_BYTES_MAX, Document
from ingest.receipts import LoadError

ID_FIELDS = ("document_id", "_id", "id")
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
            _skip_line(stream)
            message = f"{place} has more than {LINE_BYTES_MAX} bytes, the limit of a line; split the document."
            yield LoadError(place, InvalidInput("text", message))
        elif line.strip():
            try:
                yield _read_line(line, place, f"{name or source}:{number}")
            except InvalidInput as error:
                yield LoadError(place, error)


def _skip_line(stream: BinaryIO) -> None:
    while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass


def _read_line(line: bytes, place: str, default_id: str) -> Document:
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
    id_field = next((field for field in ID_FIELDS if row.get(field) is not None), None)
    document_id = default_id if id_field is None else _read_id(row[id_field], id_field, place)
    if row.get("text") is None:
        raise InvalidInput("text", f"{place}: text is missing; give the document's text.")
    return Document(
        document_id=document_id,
        text=_read_string(row, "text", place),
        title=_read_string(row, "title", place),
        source=_read_string(row, "source", place) or place,
    )


def _read_id(value: object, field: str, place: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return value
    raise InvalidInput(field, f"{place}: {field} is {json.dumps(value)[:60]}; it must be a string or a whole number.")


def _read_string(row: dict[str, object], field: str, place: str) -> str:
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(field, f"{place}: {field} is {json.dumps(value)[:60]}; it must be a string.")
    return value
