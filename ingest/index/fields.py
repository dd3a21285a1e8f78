"""What a document's chunks carry of its record, so that an engine can choose among them. Knows no engine.

A chunk carries a token for each field of its document that there is and for each value of it, and the numbers and
times by name. A token is a hash of 63 bits: one index over them serves every field that documents may ever have, and
the field and the type are part of what is hashed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from ingest.documents import MetadataValue

if TYPE_CHECKING:
    from ingest.index.interface import DocumentRecord

METADATA = "metadata."
INGESTED_AT = "ingested_at"
RANGE_NAME = re.compile(r"[a-z0-9_]{1,71}")  # of :func:`range_name`
WHOLE_BELOW = 2.0**53
# Engines keep payloads as JSON, and read decimals back with errors in the last bits.
CLOSE = 2.0**-45
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_VALUES_KEPT = 1 << 14  # with their tokens: most fields have few values


@dataclass(frozen=True, slots=True)
class DocumentFields:
    """What a filter may ask of a document, but its id."""

    tokens: tuple[int, ...]  # of the fields that it has and of their values, ascending
    ranges: Mapping[str, float]  # numbers, and times in microseconds since 1970, by :func:`range_name`


def fields_of(record: DocumentRecord) -> DocumentFields:
    """Say what the chunks of a version carry."""
    return make_fields(record.title, record.source, record.metadata, record.ingested_at)


def make_fields(
    title: str, source: str, metadata: Mapping[str, MetadataValue], ingested_at: datetime
) -> DocumentFields:
    """Say what the chunks of a version carry whose record will have these fields."""
    texts = {name: text for name, text in (("title", title), ("source", source)) if text}
    named: dict[str, MetadataValue] = {**texts, **{METADATA + name: value for name, value in metadata.items()}}
    tokens = {presence_token(field) for field in named}
    ranges = {INGESTED_AT: range_value(ingested_at)}
    for field, value in {**named, INGESTED_AT: ingested_at}.items():
        for one in value if isinstance(value, tuple) else (value,):
            tokens.add(value_token(field, one))
            if isinstance(one, int | float | datetime) and not isinstance(one, bool):
                name = range_name(field, one)
                ranges[name] = range_value(one)
                if _is_vague(one):
                    tokens.add(vague_token(name))
    return DocumentFields(tuple(sorted(tokens)), ranges)


def presence_token(field: str) -> int:
    """Make the token of a field that is there."""
    return _hash(f"{field}\0")


def value_token(field: str, value: str | float | datetime) -> int:
    """Make the token of a field with this value; a whole number is the same as a decimal one of its value."""
    match value:
        case bool():
            written = f"{field}\0b{value}"
        case float() if value.is_integer():
            written = f"{field}\0n{int(value)}"
        case int() | float():
            written = f"{field}\0n{value!r}"
        case datetime():
            written = f"{field}\0t{_microseconds(value)}"
        case _:
            written = f"{field}\0s{value}"
    return _hash(written)


def vague_token(name: str) -> int:
    """Make the token of a number, or time, of a name that engines may take for another one close by."""
    return _hash(f"{name}\0?")


def range_name(field: str, value: object) -> str:
    """Name the numbers, or the times, of a field."""
    if field == INGESTED_AT:
        return INGESTED_AT
    return f"{'time' if isinstance(value, datetime) else 'number'}_{field.removeprefix(METADATA)}"


def range_value(value: float | datetime) -> float:
    """Give a number, or a time, as engines compare it."""
    return float(_microseconds(value) if isinstance(value, datetime) else value)


def is_whole(value: float) -> bool:
    """Say whether a float is a whole number that no rounding has made."""
    return value.is_integer() and abs(value) < WHOLE_BELOW


def _is_vague(value: float | datetime) -> bool:
    """Say whether engines may not tell a value from a whole number close by."""
    rounded = range_value(value)
    if is_whole(rounded):
        return False
    return abs(rounded) >= WHOLE_BELOW or abs(rounded - round(rounded)) <= CLOSE * abs(rounded)


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


@lru_cache(maxsize=_VALUES_KEPT)
def _hash(written: str) -> int:
    return int.from_bytes(blake2b(written.encode(), digest_size=8).digest(), "little") >> 1
