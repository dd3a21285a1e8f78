"""Filters as conditions on what chunks carry (:mod:`ingest.index.fields`). Knows no engine.

Whole numbers below 2^53 (and times of the years 1684 to 2255, to the microsecond) are compared exactly. Others are read
back by engines with an error in the last bits. So what is close to a bound that is no whole number, and the few numbers
that are themselves close to a whole one, or beyond 2^53, count as within: a condition is loose, and whoever answers
compares with the record. Under a negation they count as without, and so within again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from ingest.filters import AllOf, AnyOf, Equals, Exists, Filter, IdPrefix, IsIn, Not, Range, Scalar
from ingest.index.fields import CLOSE, is_whole, presence_token, range_name, range_value, vague_token, value_token


@dataclass(frozen=True, slots=True)
class HasToken:
    """The chunk carries one of these tokens."""

    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """The chunk carries a number of this name, within all bounds that are given."""

    name: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class HasId:
    """The document has one of these ids."""

    document_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HasIdPrefix:
    """The document's id begins so."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold; of none, too."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """One part holds at least."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """The part does not hold."""

    part: Condition


Condition: TypeAlias = HasToken | Within | HasId | HasIdPrefix | Every | Some | Without


def narrow(expression: Filter, *, loose: bool = True) -> Condition:
    """Say what chunks of a document carry that an expression holds for.

    Where floats cannot tell, the condition holds, or, unless it is to be ``loose``, does not.
    """
    match expression:
        case AllOf(parts):
            return Every(tuple(narrow(part, loose=loose) for part in parts))
        case AnyOf(parts):
            return Some(tuple(narrow(part, loose=loose) for part in parts))
        case Not(part):
            return Without(narrow(part, loose=not loose))
        case IdPrefix(prefix):
            return HasIdPrefix(prefix)
        case Exists("document_id" | "ingested_at"):
            return Every(())
        case Exists(field):
            return HasToken((presence_token(field),))
        case Equals(field, value):
            return _is_one(field, (value,))
        case IsIn(field, values):
            return _is_one(field, values)
        case Range():
            return _within(expression, loose=loose)


def _is_one(field: str, values: tuple[Scalar, ...]) -> Condition:
    if field == "document_id":
        return HasId(tuple(value for value in values if isinstance(value, str)))
    return HasToken(tuple(value_token(field, value) for value in values))


def _within(bounds: Range, *, loose: bool) -> Condition:
    parts: list[Condition] = []
    for bound, lower, inclusive in (
        (bounds.above, True, False),
        (bounds.at_least, True, True),
        (bounds.below, False, False),
        (bounds.at_most, False, True),
    ):
        if isinstance(bound, int | float | datetime):
            name, value = range_name(bounds.field, bound), range_value(bound)
            parts.append(_beyond(name, value, lower=lower, inclusive=inclusive, loose=loose))
    vague = HasToken((vague_token(name),))
    return Some((Every(tuple(parts)), vague)) if loose else Every((*parts, Without(vague)))


def _beyond(name: str, bound: float, *, lower: bool, inclusive: bool, loose: bool) -> Within:
    """Compare with one bound; with a decimal so that what is close to it is within, or without."""
    if not is_whole(bound):
        margin = CLOSE * abs(bound)
        bound, inclusive = bound + (margin if lower != loose else -margin), loose
    if lower:
        return Within(name, at_least=bound) if inclusive else Within(name, above=bound)
    return Within(name, at_most=bound) if inclusive else Within(name, below=bound)
