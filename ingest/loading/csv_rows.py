"""CSV and TSV into documents, a row each. Knows the header: ``text``, an id, ``title``; the others are metadata."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from encoder.errors import InvalidInput
from ingest.documents import METADATA_FIELDS_MAX, TEXT_BYTES_MAX, Document
from ingest.loading.rows import FIELDS, make_document
from ingest.loading.values import TYPES, from_text, metadata_name
from ingest.receipts import LoadError

# Quotes may double a text's size; a row far beyond holds no acceptable document.
ROW_BYTES_MAX = 2 * TEXT_BYTES_MAX
COLUMNS_MAX = METADATA_FIELDS_MAX + len(FIELDS)
_BOM = "\ufeff"


class _TooLong(Exception):
    """A row has no end within its limit, and where the next one begins is not known."""


def read_csv(stream: BinaryIO, source: str, *, name: str, delimiter: str) -> Iterator[Document | LoadError]:
    """Read a stream with a header line; a row without an id is named after ``name`` and its number from 1.

    A column named ``NAME:TYPE`` (int, float, bool, datetime, list; str, unless said) is metadata of that type. Empty
    cells are left out. A bad row is one :class:`LoadError` with its number and field.
    """
    # csv's own limit, of all readers in the process, is less than a document.
    csv.field_size_limit(ROW_BYTES_MAX)
    lines = _Lines(stream)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    try:
        columns = _read_header(next(rows, []), lines.take_fault(), source)
        while True:
            number += 1
            place = f"{source}:{number}"
            try:
                cells = next(rows)
                document = _read_row(cells, lines.take_fault(), columns, place, f"{name}:{number}")
            except StopIteration:
                return
            except InvalidInput as error:
                yield LoadError(place, error)
            except csv.Error as error:  # of this row: the reader begins the next one afresh
                yield LoadError(place, InvalidInput("text", f"{place} is no row of a table ({error}); correct it."))
            else:
                if document:
                    yield document
    except (InvalidInput, csv.Error) as error:
        yield LoadError(source, error if isinstance(error, InvalidInput) else _malformed(source, error))
    except _TooLong as error:
        yield LoadError(f"{source}:{number}", _malformed(f"{source}:{number} and what follows", error))


def _malformed(place: str, error: Exception) -> InvalidInput:
    return InvalidInput("text", f"{place} cannot be cut into rows ({error}); correct it.")


@dataclass(frozen=True, slots=True)
class _Column:
    name: str  # of a field of the document, or of its metadata
    type_name: str  # of metadata; empty for a field


class _Lines:
    """Lines of a stream as text. What is not UTF-8 is noted, and the row goes on: csv can go on after no error."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._number = 0
        self._row_bytes = 0
        self._fault = ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(ROW_BYTES_MAX + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._row_bytes += len(line)
        if self._row_bytes > ROW_BYTES_MAX:
            raise _TooLong(f"one has more than {ROW_BYTES_MAX} bytes; perhaps a quote is missing")
        if (place := line.find(b"\0")) >= 0:
            self._fault = self._fault or f"byte {place} of line {self._number} is NUL"
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self._fault = self._fault or f"byte {error.start} of line {self._number}"
            return line.decode(errors="replace")

    def take_fault(self) -> str:
        """End a row: say what was wrong with its bytes."""
        fault, self._fault, self._row_bytes = self._fault, "", 0
        return fault


def _read_header(header: list[str], fault: str, source: str) -> list[_Column]:
    _check_bytes(fault, source)
    if len(header) > COLUMNS_MAX:
        raise InvalidInput("text", f"{source} has {len(header)} columns; the limit is {COLUMNS_MAX}.")
    columns: list[_Column] = []
    for number, cell in enumerate(header, 1):
        label, _, type_name = cell.removeprefix(_BOM).strip().partition(":")
        plain = label.strip().lower()
        if plain in FIELDS:
            column = _Column(plain, "")
        elif type_name and type_name not in TYPES:
            kinds = ", ".join(TYPES)
            raise InvalidInput("metadata", f"{source}: column {number} is of a type {type_name[:60]!r}, not {kinds}.")
        else:
            column = _Column(metadata_name(label), type_name or "str")
        if not column.name:
            raise InvalidInput("metadata", f"{source}: column {number} has no name in its header; give it one.")
        if column.name in (other.name for other in columns):
            raise InvalidInput("metadata", f"{source} has two columns {column.name!r}; rename one.")
        columns.append(column)
    if "text" not in (column.name for column in columns):
        raise InvalidInput("text", f"{source} has no column text in its first line; name the one that holds the texts.")
    return columns


def _check_bytes(fault: str, place: str) -> None:
    if fault:
        raise InvalidInput("text", f"{place} is not text in UTF-8 ({fault}); convert it, for example with iconv.")


def _read_row(cells: list[str], fault: str, columns: list[_Column], place: str, default_id: str) -> Document | None:
    """Make a document of a row; None of a blank line."""
    _check_bytes(fault, place)
    if not cells:
        return None
    if len(cells) != len(columns):
        raise InvalidInput("text", f"{place} has {len(cells)} cells, but the header has {len(columns)}; correct it.")
    row: dict[str, object] = {}
    metadata = {}
    for column, cell in zip(columns, cells, strict=True):
        if not cell:
            continue
        if column.type_name:
            field = f"metadata.{column.name}"
            try:
                metadata[column.name] = from_text(field, cell, column.type_name)
            except InvalidInput as error:
                raise InvalidInput(field, f"{place}: {error}") from None
        else:
            row[column.name] = cell
    return make_document(row, metadata, place=place, default_id=default_id)
