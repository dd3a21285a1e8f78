"""Filters inside the index: each implementation finds what ``matches`` says, among records and filters at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.documents import MetadataValue
from ingest.filters import (
    AllOf,
    AnyOf,
    Equals,
    Exists,
    Filter,
    IdPrefix,
    IsIn,
    Not,
    Range,
    Scalar,
    check_filter,
    matches,
)
from ingest.index.embedded import EmbeddedIndex
from ingest.index.fields import fields_of
from ingest.index.interface import DocumentRecord, Scope, VectorIndex
from ingest.index.points import segments_of
from ingest.sparse import sparse_query
from tests.indexes import (
    DIMENSION,
    FINGERPRINT,
    axis,
    make_chunk,
    make_record,
    search_dense,
    search_sparse,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

DOCUMENTS = 60
FILTERS = 150
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
NAMES = ["a", "b_2", "2020", "number_a", "time_a"]
TEXTS = ["", "a", "A", "é∂ 日本", "1", "True", "x" * 1024, 'quote"\\', "2026-11-29T12:00:00+00:00"]
NUMBERS: list[int | float] = [
    0,
    1,
    1.0,
    -1,
    0.1,
    -1e-300,
    1e300,
    2**53,
    2**53 + 1,
    2**53 - 1,
    2**62,
    2**62 + 1,
    -(2**63),
]
TIMES = [
    NOW,
    NOW + timedelta(microseconds=1),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_998, tzinfo=UTC),
]


def any_scalar(rnd: random.Random) -> Scalar:
    return rnd.choice([*TEXTS, *NUMBERS, *NUMBERS, True, False, *TIMES])


def any_value(rnd: random.Random) -> MetadataValue:
    if rnd.random() < 0.15:
        return tuple(rnd.sample(TEXTS, rnd.randrange(4)))
    return any_scalar(rnd)


def any_record(rnd: random.Random, number: int) -> DocumentRecord:
    document_id = rnd.choice(["", "b/", "é/"]) + f"d{number}"
    metadata = {name: any_value(rnd) for name in rnd.sample(NAMES, rnd.randrange(len(NAMES) + 1))}
    made = make_record(document_id, metadata=metadata)
    ingested_at = NOW + timedelta(microseconds=rnd.randrange(-3, 4))
    return replace(made, title=rnd.choice(TEXTS), source=rnd.choice(TEXTS), ingested_at=ingested_at)


def any_condition(rnd: random.Random) -> Filter:
    field = rnd.choice([*(f"metadata.{name}" for name in [*NAMES, "absent"]), "title", "source"])

    def numbers() -> Scalar:
        return rnd.choice(NUMBERS)

    def times() -> Scalar:
        return rnd.choice(TIMES)

    def within(of: str, choose: Callable[[], Scalar]) -> Filter:
        bounds = {"above": choose(), "at_least": choose(), "below": choose(), "at_most": choose()}
        return Range(of, **dict(rnd.sample(sorted(bounds.items(), key=lambda pair: pair[0]), rnd.randrange(1, 3))))

    kinds: list[Callable[[], Filter]] = [
        lambda: Exists(rnd.choice([field, "document_id", "ingested_at"])),
        lambda: IdPrefix(rnd.choice(["d", "b/", "é", "é/d1", "d12"])),
        lambda: Equals("document_id", f"d{rnd.randrange(DOCUMENTS)}"),
        lambda: IsIn("document_id", tuple(f"b/d{rnd.randrange(DOCUMENTS)}" for _ in range(9))),
        lambda: Equals("ingested_at", NOW),
        lambda: within("ingested_at", lambda: NOW + timedelta(microseconds=rnd.randrange(-3, 4))),
    ]
    if field in ("title", "source"):
        kinds += 3 * [lambda: Equals(field, rnd.choice(TEXTS)), lambda: IsIn(field, tuple(rnd.sample(TEXTS, 3)))]
    else:
        kinds += 3 * [
            lambda: Equals(field, any_scalar(rnd)),
            lambda: IsIn(field, tuple(any_scalar(rnd) for _ in range(4))),
            lambda: within(field, numbers),
            lambda: within(field, times),
        ]
    return rnd.choice(kinds)()


def any_filter(rnd: random.Random, depth: int = 3) -> Filter:
    if depth == 0 or rnd.random() < 0.3:
        return any_condition(rnd)
    parts = tuple(any_filter(rnd, depth - 1) for _ in range(rnd.randrange(1, 4)))
    return rnd.choice([AllOf(parts), AnyOf(parts), Not(parts[0])])


async def found(index: VectorIndex, chosen: Filter, records: dict[str, DocumentRecord], limit: int) -> set[str]:
    """What a search answers with: what the index narrows down to, compared with the records."""
    hits = await search_dense(index, axis(0), limit, Scope(filter=chosen))
    words = await search_sparse(index, sparse_query("word"), limit, Scope(filter=chosen))
    assert {hit.chunk for hit in hits} == {hit.chunk for hit in words}
    return {hit.chunk.document_id for hit in hits if matches(chosen, records[hit.chunk.document_id])}


async def test_every_index_finds_what_a_filter_says(index: VectorIndex) -> None:
    rnd = random.Random(6)
    records = {record.document_id: record for record in (any_record(rnd, number) for number in range(DOCUMENTS))}
    # Half of them come with what they carry, as ingestion writes them; the others get it on commit.
    chunks = [
        replace(make_chunk(name, 0, "word", direction=0), fields=fields_of(record) if place % 2 else None)
        for place, (name, record) in enumerate(records.items())
    ]
    await index.upsert_chunks(chunks)
    for record in records.values():
        assert await index.commit_record(record)
    sizes = set()
    for _ in range(FILTERS):
        chosen = any_filter(rnd)
        check_filter(chosen)
        right = {name for name, record in records.items() if matches(chosen, record)}
        assert await found(index, chosen, records, DOCUMENTS) == right, chosen
        sizes.add(len(right))
    assert len(sizes) > 10


async def test_a_selective_filter_finds_all_there_is_beyond_many_nearer_chunks(index: VectorIndex) -> None:
    for name, direction, year in (("near", 0, 1999), ("far", 1, 2020)):
        await index.upsert_chunks([make_chunk(name, number, "word", direction=direction) for number in range(50)])
        await index.commit_record(make_record(name, chunk_count=50, metadata={"year": year}))
    scope = Scope(filter=Range("metadata.year", above=2000))
    assert {hit.chunk.document_id for hit in await search_dense(index, axis(0), 10, scope)} == {"far"}
    assert {hit.chunk.document_id for hit in await search_sparse(index, sparse_query("word"), 10, scope)} == {"far"}


async def test_metadata_that_change_alone_are_found_at_once_in_all_segments(index: VectorIndex) -> None:
    first = make_record("d", chunk_count=40, metadata={"year": 1999, "kept": "yes"})
    await index.upsert_chunks([make_chunk("d", number, "word", direction=0) for number in range(40)])
    assert await index.commit_record(first)
    await index.upsert_chunks([make_chunk("d", 40, "word", generation=2, direction=0)])
    grown = replace(make_record("d", generation=2, chunk_count=41), earlier=segments_of([(1, 40)]))
    for record in (
        replace(grown, metadata={"year": 2001, "kept": "yes"}),
        replace(grown, metadata={"year": 2002, "kept": "yes"}, ingested_at=NOW),
    ):
        assert await index.commit_record(record)
        year = record.metadata["year"]
        for chosen, count in ((Equals("metadata.year", year), 41), (Equals("metadata.kept", "yes"), 41)):
            assert isinstance(chosen, Equals)
            assert len(await search_dense(index, axis(0), 100, Scope(filter=chosen))) == count
        for gone in (1999, 2003, year - 1 if isinstance(year, int) else 0):
            assert await search_dense(index, axis(0), 100, Scope(filter=Equals("metadata.year", gone))) == []


async def test_a_scope_and_a_filter_both_hold(index: VectorIndex) -> None:
    for name in ("a", "b", "c"):
        await index.upsert_chunks([make_chunk(name, 0, "word", direction=0)])
        await index.commit_record(make_record(name, metadata={"odd": name != "b"}))
    odd = Equals("metadata.odd", value=True)
    hits = await search_dense(index, axis(0), 9, Scope(generations={"a": [1], "b": [1]}, filter=odd))
    assert {hit.chunk.document_id for hit in hits} == {"a"}
    hits = await search_dense(index, axis(0), 9, Scope(without={"a": [1]}, filter=odd))
    assert {hit.chunk.document_id for hit in hits} == {"c"}
    assert await search_dense(index, axis(0), 9, Scope("other", filter=odd)) == []


async def test_an_end_amid_a_change_of_metadata_is_made_good_on_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"dimension": DIMENSION, "fingerprint": FINGERPRINT}
    index = await EmbeddedIndex.open(tmp_path, **made)  # type: ignore[arg-type]
    await index.upsert_chunks([make_chunk("d", number, "word", direction=0) for number in range(3)])
    assert await index.commit_record(make_record("d", chunk_count=3, metadata={"year": 1999}))

    async def ended(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(index, "_describe", ended)
        with pytest.raises(ConnectionError):
            await index.commit_record(make_record("d", chunk_count=3, metadata={"year": 2001}))
    new = Scope(filter=Equals("metadata.year", 2001))
    assert await search_dense(index, axis(0), 9, new) == []
    # Whatever else is written of the document does not take the mark away.
    await index.fence(make_record("d").key, 5)
    await index.close()
    index = await EmbeddedIndex.open(tmp_path, **made)  # type: ignore[arg-type]
    assert len(await search_dense(index, axis(0), 9, new)) == 3
    assert await index._read(lambda: index._engine.list_describing()) == []
    await index.close()
