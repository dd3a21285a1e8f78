"""Parquet into documents, a row each, read batch by batch. Knows the columns: ``text``, an id, ``title``, metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from encoder.errors import InvalidInput
from ingest.documents import METADATA_FIELDS_MAX, Document
from ingest.loading.parsed import Unreadable
from ingest.loading.rows import FIELDS, ID_FIELDS, make_document
from ingest.loading.values import from_column, metadata_name
from ingest.receipts import LoadError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

NO_PYARROW = "needs pyarrow to be read; install it: pip install 'mamba-search[documents]'."
BATCH_BYTES = 16 * 1024 * 1024  # of values, about
BATCH_ROWS_MAX = 1024
COLUMNS_MAX = METADATA_FIELDS_MAX + len(FIELDS)
# A row group is what a writer kept in memory; larger ones would have to be kept here, too.
ROW_GROUP_BYTES_MAX = 4 * 1024 * 1024 * 1024


def read_parquet(
    stream: BinaryIO, source: str, *, name: str, row_groups: Sequence[int] | None = None
) -> Iterator[Document | LoadError]:
    """Read a file; a row without an id is named after ``name`` and its number from 1. Nulls are left out.

    With ``row_groups`` only these, which follow one another; rows keep the numbers that they have in the file. A bad
    row is one :class:`LoadError` with its number and field; what follows a broken place is lost, with one error.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise Unreadable(NO_PYARROW) from None
    number = 0
    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            fields = _read_schema(file.schema_arrow, source)
            groups = range(file.num_row_groups) if row_groups is None else row_groups
            number = sum(file.metadata.row_group(index).num_rows for index in range(min(groups, default=0)))
            for batch in file.iter_batches(_batch_rows(file, source), row_groups=groups, use_threads=False):
                columns = [_in_microseconds(column) for column in batch.columns]
                for row in range(batch.num_rows):
                    number += 1
                    cells = [column[row] for column in columns]
                    yield _read_row(cells, fields, f"{source}:{number}", f"{name}:{number}")
    except InvalidInput as error:
        yield LoadError(source, error)
    except (pa.ArrowException, OSError, MemoryError) as error:
        message = f"{source} is not Parquet that can be read, after row {number} ({str(error)[:300]}); write it anew."
        yield LoadError(source, InvalidInput("text", message))


def row_group_bytes(stream: BinaryIO, source: str) -> list[int]:
    """Give the size of each row group, as it is in memory; raises :class:`Unreadable` where it is no Parquet."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise Unreadable(NO_PYARROW) from None
    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            _read_schema(file.schema_arrow, source)
            return [file.metadata.row_group(index).total_byte_size for index in range(file.num_row_groups)]
    except pa.ArrowException as error:
        raise Unreadable(f"is not Parquet that can be read ({str(error)[:300]}); write it anew.") from None


def _batch_rows(file: pq.ParquetFile, source: str) -> int:
    """Give a number of rows whose values need little memory, by the largest mean size in a group of rows."""
    largest = 1
    for index in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(index)
        if group.total_byte_size > ROW_GROUP_BYTES_MAX:
            message = f"{source} has {group.total_byte_size} bytes in a row group; the limit is {ROW_GROUP_BYTES_MAX}."
            raise InvalidInput("text", f"{message} Write it with smaller ones.")
        largest = max(largest, group.total_byte_size // max(group.num_rows, 1))
    return max(1, min(BATCH_ROWS_MAX, BATCH_BYTES // largest))


def _read_schema(schema: pa.Schema, source: str) -> list[str]:
    """Give the name that each column has in a document, with ``metadata.`` before those that are metadata."""
    if len(schema) > COLUMNS_MAX:
        raise InvalidInput("text", f"{source} has {len(schema)} columns; the limit is {COLUMNS_MAX}.")
    fields: list[str] = []
    for column in schema:
        plain = column.name.strip().lower()
        field = plain if plain in FIELDS else f"metadata.{metadata_name(column.name)}"
        if field.startswith("metadata.") and not _is_metadata(column.type):
            message = (
                f"{source}: column {column.name!r} is of type {column.type}, which metadata cannot have; remove it."
            )
            raise InvalidInput(field, message)
        if field in FIELDS and not _is_field(field, column.type):
            raise InvalidInput(
                field, f"{source}: column {column.name!r} is of type {column.type}, not a string; convert it."
            )
        if field == "metadata.":
            raise InvalidInput("metadata", f"{source} has a column {column.name!r}; give it a name of letters.")
        if field in fields:
            raise InvalidInput(field, f"{source} has two columns {column.name!r}; rename one.")
        fields.append(field)
    if "text" not in fields:
        raise InvalidInput("text", f"{source} has no column text; name the one that holds the texts so.")
    return fields


def _is_field(field: str, kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return _is_string(kind) or types.is_null(kind) or (field in ID_FIELDS and types.is_integer(kind))


def _is_metadata(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_string(kind.value_type)
    others = (
        types.is_integer, types.is_floating, types.is_boolean, types.is_timestamp, types.is_date, types.is_null,
    )  # fmt: skip
    return _is_string(kind) or any(check(kind) for check in others)


def _is_string(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Round finer times down: Python has none."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


def _read_row(cells: list[Any], fields: list[str], place: str, default_id: str) -> Document | LoadError:
    row: dict[str, object] = {}
    metadata = {}
    try:
        for field, cell in zip(fields, cells, strict=True):
            value = _value(cell, field, place)
            if value is None:
                continue
            if field in FIELDS:
                row[field] = value
            else:
                metadata[field.removeprefix("metadata.")] = from_column(field, value)
        return make_document(row, metadata, place=place, default_id=default_id)
    except InvalidInput as error:
        message = str(error) if str(error).startswith(place) else f"{place}: {error}"
        return LoadError(place, InvalidInput(error.field, message))


def _value(cell: Any, field: str, place: str) -> object:  # noqa: ANN401 - pyarrow's scalars come without types
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        raise InvalidInput(field, f"{place}: {field} is not UTF-8 (byte {error.start}); write it anew.") from None
    except (ValueError, OverflowError) as error:  # times of other centuries, or finer than microseconds
        raise InvalidInput(field, f"{place}: {field} is a value that cannot be read ({error}).") from None
