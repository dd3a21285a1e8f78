"""Simple conditions of the command line as filters: ``year>=2020``, ``document_id^=docs/``, ``author``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from encoder.errors import InvalidInput
from ingest.filters import (
    RECORD_FIELDS,
    AllOf,
    Equals,
    Exists,
    Filter,
    IdPrefix,
    IsIn,
    Not,
    Range,
    Scalar,
    check_filter,
)
from ingest.index.fields import METADATA
from ingest.loading.values import read_time

_CONDITION = re.compile(r"\s*([A-Za-z0-9_.]+)\s*(?:(!=|>=|<=|\^=|=|>|<)\s*(.*?))?\s*", re.DOTALL)
_BOUNDS = {">": "above", ">=": "at_least", "<": "below", "<=": "at_most"}
_TRUTH = {"true": True, "false": False}


def filter_of(conditions: Sequence[str]) -> Filter | None:
    """Make a filter of conditions that must all hold; None of none. :class:`InvalidInput` for one that is none."""
    parts = tuple(_condition(condition) for condition in conditions)
    if not parts:
        return None
    made = parts[0] if len(parts) == 1 else AllOf(parts)
    check_filter(made)
    return made


def _condition(text: str) -> Filter:
    found = _CONDITION.fullmatch(text)
    if not found:
        ways = "FIELD=VALUE, !=, <, <=, > or >=, document_id^=PREFIX, or FIELD alone"
        raise InvalidInput("where", f"where is {text[:80]!r}; write {ways}.")
    name, operator, value = found.groups()
    field = name if name in RECORD_FIELDS or name.startswith(METADATA) else METADATA + name
    match operator:
        case None:
            return Exists(field)
        case "=":
            return _equals(field, value)
        case "!=":
            return Not(_equals(field, value))
        case "^=":
            if field != "document_id":
                raise InvalidInput("where", f"where is {text[:80]!r}; ^= is for document_id alone.")
            return IdPrefix(value)
        case _:
            bound = next((read for read in _readings(value) if not isinstance(read, str)), value)
            return Range(field, **{_BOUNDS[operator]: bound})


def _equals(field: str, value: str) -> Filter:
    """Compare with all that a value can mean, unless it stands in quotes: 2020 may be a number or a text."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        return Equals(field, value[1:-1])
    kind = RECORD_FIELDS.get(field)
    readings = [read for read in _readings(value) if kind is None or isinstance(read, str) == (kind == "text")]
    return Equals(field, readings[0]) if len(readings) == 1 else IsIn(field, tuple(readings) or (value,))


def _readings(value: str) -> list[Scalar]:
    found: list[Scalar] = [value]
    if value.lower() in _TRUTH:
        found.append(_TRUTH[value.lower()])
    elif (moment := _number_or_time(value)) is not None:
        found.append(moment)
    return found


def _number_or_time(value: str) -> int | float | datetime | None:
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    return read_time(value)
