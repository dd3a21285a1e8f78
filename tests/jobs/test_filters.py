"""Filters: what they mean, what they refuse, and the way over the wire and from the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from mambasearch.v1 import filter_pb2, metadata_pb2

from encoder.errors import InvalidInput
from ingest.filters import AllOf, AnyOf, Equals, Exists, Filter, IdPrefix, IsIn, Not, Range, check_filter, matches
from ingest.index.filter_messages import filter_from_message, filter_to_message
from services.cli.where import filter_of
from tests.indexes import make_record

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
RECORD = dataclasses.replace(
    make_record("docs/a"),
    title="",
    metadata={
        "year": 2020,
        "score": 0.5,
        "yes": True,
        "author": "Ann",
        "tags": ("red", "blue"),
        "when": NOON,
        "none": (),
    },
)

CASES: Sequence[tuple[Filter, bool]] = [
    (Equals("document_id", "docs/a"), True),
    (IdPrefix("docs/"), True),
    (IdPrefix("other/"), False),
    (Equals("source", "a/b.txt"), True),
    (Exists("title"), False),
    (Exists("source"), True),
    (Equals("title", "x"), False),
    (Equals("metadata.year", 2020), True),
    (Equals("metadata.year", 2020.0), True),
    (Equals("metadata.year", "2020"), False),
    (Equals("metadata.yes", value=True), True),
    (Equals("metadata.yes", 1), False),
    (Equals("metadata.year", value=True), False),
    (Equals("metadata.tags", "blue"), True),
    (Equals("metadata.tags", "green"), False),
    (Equals("metadata.missing", "x"), False),
    (Not(Equals("metadata.missing", "x")), True),
    (IsIn("metadata.author", ("Bob", "Ann")), True),
    (IsIn("metadata.author", (1, 2)), False),
    (Range("metadata.year", at_least=2020), True),
    (Range("metadata.year", above=2020), False),
    (Range("metadata.year", below=2020.5, above=2019), True),
    (Range("metadata.year", at_most=2019), False),
    (Range("metadata.author", above=1), False),
    (Range("metadata.yes", at_least=0), False),
    (Range("metadata.missing", above=1), False),
    (Range("metadata.when", at_least=NOON, below=NOON + timedelta(1)), True),
    (Range("metadata.when", above=1), False),
    (Range("ingested_at", below=NOON), True),
    (Exists("metadata.none"), True),
    (Exists("metadata.missing"), False),
    (AllOf((Exists("metadata.year"), Equals("metadata.author", "Ann"))), True),
    (AllOf((Exists("metadata.year"), Equals("metadata.author", "Bob"))), False),
    (AnyOf((Exists("metadata.missing"), Not(Exists("metadata.none")), IdPrefix("d"))), True),
]


@pytest.mark.parametrize(("expression", "holds"), CASES)
def test_what_a_filter_means_also_over_the_wire(expression: Filter, *, holds: bool) -> None:
    check_filter(expression)
    assert matches(expression, RECORD) is holds
    message = filter_pb2.Filter.FromString(filter_to_message(expression).SerializeToString())
    assert filter_from_message(message) == expression


def nested(depth: int) -> Filter:
    expression: Filter = Exists("title")
    for _ in range(depth):
        expression = Not(expression)
    return expression


@pytest.mark.parametrize(
    ("expression", "field", "message"),
    [
        (Equals("titel", "x"), "filter.titel", "names a field 'titel'; document_id, title, source, ingested_at and"),
        (Equals("metadata.Year", 1), "filter.metadata.Year", "names a field 'metadata.Year'"),
        (Equals("title", 3), "filter.title", r"title is compared with a number \(3\); it is a text"),
        (Equals("ingested_at", "now"), "filter.ingested_at", r"compared with a text \(now\); it is a time"),
        (Range("document_id", above=1), "filter.document_id", "compared with a number"),
        (Range("metadata.x", above="a"), "filter.metadata.x", "bounds of type text; give numbers alone or times alone"),
        (Range("metadata.x", above=True), "filter.metadata.x", "bounds of type truth value"),
        (Range("metadata.x", above=1, below=NOON), "filter.metadata.x", "bounds of type number and time"),
        (Range("metadata.x"), "filter.metadata.x", "bounds of type none"),
        (Equals("metadata.x", float("nan")), "filter.metadata.x", "compared with 'nan'; give a text, a finite number"),
        (Equals("metadata.x", ("a",)), "filter.metadata.x", "give a text"),  # type: ignore[arg-type]
        (Equals("metadata.x", NOON.astimezone(timezone(timedelta(hours=1)))), "filter.metadata.x", "not a time in UTC"),
        (Equals("metadata.x", "y" * 4097), "filter.metadata.x", "compared with 4097 characters"),
        (IsIn("metadata.x", ()), "filter.metadata.x", "compared with 0 values; 1 to 256"),
        (IsIn("metadata.x", (1,) * 257), "filter.metadata.x", "compared with 257 values"),
        (IdPrefix(""), "filter.document_id_prefix", "has 0 bytes; 1 to 512"),
        (AllOf(()), "filter", "holds an empty all_of or any_of"),
        (AllOf((Exists("title"),) * 128), "filter", "over 8 levels deep or has over 128 parts"),
        (nested(8), "filter", "over 8 levels deep"),
    ],
)
def test_a_filter_beyond_its_limits_is_refused(expression: Filter, field: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        check_filter(expression)
    assert refusal.value.field == field


def test_the_limits_themselves_are_allowed() -> None:
    check_filter(nested(7))
    check_filter(AllOf((Exists("title"),) * 127))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (filter_pb2.Filter(), "filter"),
        (filter_pb2.Filter(negated=filter_pb2.Filter()), "filter"),
        (filter_pb2.Filter(equals=filter_pb2.FieldEquals(field="title")), "filter.title"),
        (
            filter_pb2.Filter(
                is_in=filter_pb2.FieldIsIn(
                    field="metadata.x",
                    values=[metadata_pb2.MetadataValue(texts=metadata_pb2.MetadataTexts(texts=["a"]))],
                )
            ),
            "filter.metadata.x",
        ),
    ],
)
def test_a_message_that_says_nothing_is_refused(message: filter_pb2.Filter, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        filter_from_message(message)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("conditions", "made"),
    [
        ([], None),
        (["year>=2020"], Range("metadata.year", at_least=2020)),
        (["metadata.title = x"], Equals("metadata.title", "x")),
        (["title=x=y"], Equals("title", "x=y")),
        (["year=2020"], IsIn("metadata.year", ("2020", 2020))),
        (['year="2020"'], Equals("metadata.year", "2020")),
        (["title=2020"], Equals("title", "2020")),
        (["done!=true"], Not(IsIn("metadata.done", ("true", True)))),
        (["when<2026-01-02T12:00:00Z"], Range("metadata.when", below=NOON)),
        (["ingested_at>2026-01-02"], Range("ingested_at", above=NOON.replace(hour=0))),
        (["document_id^=docs/", "author"], AllOf((IdPrefix("docs/"), Exists("metadata.author")))),
    ],
)
def test_conditions_of_the_command_line(conditions: list[str], made: Filter | None) -> None:
    assert filter_of(conditions) == made


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "write FIELD=VALUE"),
        ("=x", "write FIELD=VALUE"),
        ("author^=x", r"\^= is for document_id alone"),
        ("year>abc", "bounds of type text"),
        ("ingested_at=soon", r"compared with a text \(soon\); it is a time"),
    ],
)
def test_a_condition_that_is_none_is_refused(condition: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        filter_of([condition])
