"""Values of metadata from outside: text, JSON and columns into the types that metadata have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import cast

from encoder.errors import InvalidInput
from ingest.documents import MetadataValue, check_metadata_value
from ingest.loading.parsed import in_utc

LIST_SEPARATOR = ";"
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d{2}:?\d{2})?")
_FULL_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})")
_NAME = re.compile(r"[^a-z0-9]+")


def metadata_name(text: str) -> str:
    """Make a name of metadata of a heading: ``Publication Date`` is ``publication_date``; empty if nothing is left."""
    return _NAME.sub("_", text.lower()).strip("_")


def read_time(text: str) -> datetime | None:
    """Read a date (its midnight) or a time in ISO 8601, in UTC unless it says otherwise; None where it is none."""
    if not (_DATE.fullmatch(text) or _TIME.fullmatch(text)):
        return None
    try:
        return in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def from_json(field: str, value: object) -> MetadataValue:
    """Take a value of JSON; a string that is a time with its zone, as in RFC 3339, is a time."""
    if isinstance(value, str) and _FULL_TIME.fullmatch(value):
        return read_time(value) or value
    taken = tuple(value) if isinstance(value, list) else value
    check_metadata_value(field, taken)
    return cast("MetadataValue", taken)


def from_column(field: str, value: object) -> MetadataValue:
    """Take a value of a typed column; dates and times without a zone are in UTC."""
    if isinstance(value, datetime):
        value = in_utc(value)
    elif isinstance(value, date):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif isinstance(value, list):
        value = tuple(value)
    check_metadata_value(field, value)
    return cast("MetadataValue", value)


def from_text(field: str, text: str, type_name: str) -> MetadataValue:
    """Read a cell of text as the type that its column names; :class:`InvalidInput` where it is of another."""
    try:
        value = TYPES[type_name](text.strip())
    except (KeyError, ValueError):
        raise InvalidInput(field, f"{field} is {text[:60]!r}, which is no {type_name}.") from None
    check_metadata_value(field, value)
    return value


def _read_moment(text: str) -> datetime:
    if (moment := read_time(text)) is None:
        raise ValueError(text)
    return moment


def _read_list(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(LIST_SEPARATOR) if entry.strip())


TYPES: Mapping[str, Callable[[str], MetadataValue]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: _TRUTH[text.lower()],
    "datetime": _read_moment,
    "list": _read_list,
}
