"""Which documents are meant: an expression over what an index knows of each beside its text. Knows no engine.

A field is ``document_id``, ``title``, ``source`` (texts), ``ingested_at`` (a time), or ``metadata.NAME``. A document
without a field, or with a value of another type there, fulfils no condition on it; whole and decimal numbers are one
type, truth values are none of them. A field of several texts equals each of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from encoder.errors import InvalidInput
from encoder.tokenizer import check_characters
from ingest.documents import (
    DOCUMENT_ID_BYTES_MAX,
    METADATA_NAME,
    SOURCE_CHARS_MAX,
    MetadataValue,
)
from ingest.index.fields import METADATA
from ingest.index.interface import DocumentRecord

DEPTH_MAX = 8
PARTS_MAX = 128
VALUES_MAX = 256
# The type of each field that every document has; those of metadata may have any.
RECORD_FIELDS = {"document_id": "text", "title": "text", "source": "text", "ingested_at": "time"}

Scalar: TypeAlias = str | int | float | bool | datetime


@dataclass(frozen=True, slots=True)
class Equals:
    """The field has this value."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class IsIn:
    """The field has one of these values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies within bounds, all numbers or all times."""

    field: str
    above: Scalar | None = None
    at_least: Scalar | None = None
    below: Scalar | None = None
    at_most: Scalar | None = None

    @property
    def bounds(self) -> list[Scalar]:
        """Those that are given."""
        every = (self.above, self.at_least, self.below, self.at_most)
        return [bound for bound in every if bound is not None]


@dataclass(frozen=True, slots=True)
class Exists:
    """The document has the field; an empty title or source is none."""

    field: str


@dataclass(frozen=True, slots=True)
class IdPrefix:
    """The document's id begins so."""

    prefix: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """All parts hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = Equals | IsIn | Range | Exists | IdPrefix | AllOf | AnyOf | Not


def matches(expression: Filter, record: DocumentRecord) -> bool:
    """Say whether an expression holds for a document."""
    match expression:
        case AllOf(parts):
            return all(matches(part, record) for part in parts)
        case AnyOf(parts):
            return any(matches(part, record) for part in parts)
        case Not(part):
            return not matches(part, record)
        case IdPrefix(prefix):
            return record.document_id.startswith(prefix)
        case Exists(field):
            return _value(record, field) is not None
        case Equals(field, value):
            return _is_one(_value(record, field), (value,))
        case IsIn(field, values):
            return _is_one(_value(record, field), values)
        case Range(field):
            return _is_within(_value(record, field), expression)


def check_filter(expression: Filter) -> None:
    """Raise :class:`InvalidInput` for what breaks a limit, names no field, or compares a field with another type."""
    waiting: list[tuple[Filter, int]] = [(expression, 1)]
    count = 0
    while waiting:
        part, depth = waiting.pop()
        count += 1
        if depth > DEPTH_MAX or count > PARTS_MAX:
            message = f"filter is over {DEPTH_MAX} levels deep or has over {PARTS_MAX} parts; make it simpler."
            raise InvalidInput("filter", message)
        match part:
            case AllOf(parts) | AnyOf(parts):
                if not parts:
                    raise InvalidInput("filter", "filter holds an empty all_of or any_of; give it parts.")
                waiting += [(one, depth + 1) for one in parts]
            case Not(one):
                waiting.append((one, depth + 1))
            case _:
                _check_condition(part)


def _check_condition(part: Equals | IsIn | Range | Exists | IdPrefix) -> None:
    match part:
        case IdPrefix(prefix):
            check_characters("filter.document_id_prefix", prefix)
            if not 1 <= (size := len(prefix.encode())) <= DOCUMENT_ID_BYTES_MAX:
                message = f"document_id_prefix has {size} bytes; 1 to {DOCUMENT_ID_BYTES_MAX} are allowed."
                raise InvalidInput("filter.document_id_prefix", message)
        case Exists(field):
            _check_field(field)
        case Equals(field, value):
            _check_values(field, (value,))
        case IsIn(field, values):
            if not 1 <= len(values) <= VALUES_MAX:
                message = f"{field[:80]} is compared with {len(values)} values; 1 to {VALUES_MAX} are allowed."
                raise InvalidInput(f"filter.{field[:80]}", message)
            _check_values(field, values)
        case Range(field):
            bounds = part.bounds
            _check_values(field, bounds)
            kinds = {_kind(bound) for bound in bounds}
            if kinds not in ({"number"}, {"time"}):
                given = " and ".join(sorted(kinds)) or "none"
                message = f"{field} has bounds of type {given}; give numbers alone or times alone, at least one."
                raise InvalidInput(f"filter.{field}", message)


def _check_field(field: str) -> None:
    if field not in RECORD_FIELDS and not (
        field.startswith(METADATA) and METADATA_NAME.fullmatch(field.removeprefix(METADATA))
    ):
        known = ", ".join(RECORD_FIELDS)
        raise InvalidInput(
            f"filter.{field[:80]}", f"filter names a field {field[:80]!r}; {known} and metadata.NAME are known."
        )


def _check_values(field: str, values: Sequence[Scalar]) -> None:
    _check_field(field)
    place, expected = f"filter.{field}", RECORD_FIELDS.get(field)
    for value in values:
        kind = _kind(value)
        if kind == "text":
            assert isinstance(value, str)
            check_characters(place, value)
            if len(value) > SOURCE_CHARS_MAX:
                message = f"{field} is compared with {len(value)} characters; the limit is {SOURCE_CHARS_MAX}."
                raise InvalidInput(place, message)
        if kind == "" or (isinstance(value, float) and not math.isfinite(value)):
            message = (
                f"{field} is compared with {str(value)[:60]!r}; give a text, a finite number, yes or no, or a time."
            )
            raise InvalidInput(place, message)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InvalidInput(place, f"{field} is compared with {str(value)[:60]}, which is beyond 64 bits.")
        if isinstance(value, datetime) and value.utcoffset() != timedelta(0):
            raise InvalidInput(place, f"{field} is compared with {value}, which is not a time in UTC.")
        if expected and kind != expected:
            raise InvalidInput(place, f"{field} is compared with a {kind} ({str(value)[:60]}); it is a {expected}.")


def _kind(value: object) -> str:
    """Name the type of a value; empty for one that nothing can be compared with."""
    match value:
        case bool():  # before int, which it is, too
            return "truth value"
        case int() | float():
            return "number"
        case str():
            return "text"
        case datetime():
            return "time"
        case _:
            return ""


def _value(record: DocumentRecord, field: str) -> MetadataValue | None:
    match field:
        case "document_id":
            return record.document_id
        case "title":
            return record.title or None
        case "source":
            return record.source or None
        case "ingested_at":
            return record.ingested_at
        case _:
            return record.metadata.get(field.removeprefix(METADATA))


def _is_one(found: MetadataValue | None, wanted: tuple[Scalar, ...]) -> bool:
    several = found if isinstance(found, tuple) else (found,)
    return any(one == value and _kind(one) == _kind(value) for one in several for value in wanted)


def _is_within(found: Any, bounds: Range) -> bool:  # noqa: ANN401 - mypy does not see that the types are the same
    kind = _kind(found)
    if kind not in ("number", "time") or kind != _kind(bounds.bounds[0]):
        return False
    return bool(
        (bounds.above is None or found > bounds.above)
        and (bounds.at_least is None or found >= bounds.at_least)
        and (bounds.below is None or found < bounds.below)
        and (bounds.at_most is None or found <= bounds.at_most)
    )
