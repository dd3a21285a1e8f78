"""BM25's statistics, asked of each index: of the tenant's committed chunks, whatever else there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import DocumentRecord, Scope, VectorIndex
from ingest.index.points import segments_of
from ingest.index.under_way import UnderWay
from ingest.sparse import sparse_passage, sparse_query
from tests.indexes import (
    DIMENSION,
    FINGERPRINT,
    key_of,
    make_chunk,
    make_record,
    search_sparse,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

TEXTS = ["red apple", "green apple", "yellow lemon"]


async def write(
    index: VectorIndex, document_id: str, texts: Sequence[str], *, generation: int = 1, tenant: str = "default"
) -> DocumentRecord:
    chunks = [
        make_chunk(document_id, number, text, generation=generation, tenant=tenant) for number, text in enumerate(texts)
    ]
    await index.upsert_chunks(chunks)
    return make_record(document_id, generation=generation, chunk_count=len(texts), tenant=tenant)


async def apple(index: VectorIndex) -> float:
    """The score of the document ``d`` for a word that stands in two of its three chunks."""
    scope = Scope(generations={"d": [1]})
    return (await search_sparse(index, sparse_query("apple"), 9, scope))[0].score


def expected(found: int, of: int) -> float:
    """What BM25 gives for the word where it stands in so many chunks."""
    return float(sparse_passage(TEXTS[0]).values[0] * np.log(1 + (of - found + 0.5) / (found + 0.5)))


async def test_only_what_is_committed_counts_and_only_the_tenants_own(index: VectorIndex) -> None:
    assert await index.commit_record(await write(index, "d", TEXTS))
    assert await apple(index) == pytest.approx(expected(2, 3), rel=1e-4)

    other = await write(index, "d", ["apple pie", "apple"], tenant="other")
    assert await index.commit_record(other)
    assert await apple(index) == pytest.approx(expected(2, 3), rel=1e-4)

    new = await write(index, "e", ["apple", "pear"])
    assert await apple(index) == pytest.approx(expected(2, 3), rel=1e-4)
    assert await index.commit_record(new)
    assert await apple(index) == pytest.approx(expected(3, 5), rel=1e-4)
    assert await index.commit_record(new)
    assert await apple(index) == pytest.approx(expected(3, 5), rel=1e-4)

    second = await write(index, "e", ["pear"], generation=2)
    assert await apple(index) == pytest.approx(expected(3, 5), rel=1e-4)
    assert await index.commit_record(second)
    assert await apple(index) == pytest.approx(expected(2, 4), rel=1e-4)
    await index.delete_chunks(key_of("e"), below=2)
    assert await apple(index) == pytest.approx(expected(2, 4), rel=1e-4)

    assert await index.delete_record(key_of("e"), 3)
    assert await apple(index) == pytest.approx(expected(2, 3), rel=1e-4)
    await index.delete_chunks(key_of("e"), below=4)
    assert await apple(index) == pytest.approx(expected(2, 3), rel=1e-4)


async def test_what_is_refused_does_not_count(index: VectorIndex) -> None:
    assert await index.commit_record(await write(index, "d", TEXTS))
    await index.fence(key_of("e"), 4)
    assert not await index.commit_record(await write(index, "e", ["apple", "apple"], generation=4))
    assert not await index.commit_record(await write(index, "d", ["apple"], generation=2), in_place_of=7)
    assert await apple(index) == pytest.approx(expected(2, 3), rel=1e-4)


async def test_what_a_growing_document_keeps_counts_once(index: VectorIndex) -> None:
    assert await index.commit_record(await write(index, "d", TEXTS))
    await index.upsert_chunks([make_chunk("d", 3, "apple", generation=2), make_chunk("d", 4, "pear", generation=2)])
    grown = replace(make_record("d", generation=2, chunk_count=5), earlier=segments_of([(1, 3)]))
    assert await index.commit_record(grown, in_place_of=1)
    assert await apple(index) == pytest.approx(expected(3, 5), rel=1e-4)
    assert await index.commit_record(await write(index, "d", ["apple"], generation=3), in_place_of=2)
    assert await apple(index) == pytest.approx(expected(1, 1), rel=1e-4)


async def test_chunks_that_are_written_again_count_once(index: VectorIndex) -> None:
    record = await write(index, "d", TEXTS)
    await write(index, "d", TEXTS)
    assert await index.commit_record(record)
    await write(index, "d", ["red apple", "green pear", "yellow lemon"])
    assert await index.commit_record(record)
    assert await apple(index) == pytest.approx(expected(1, 3), rel=1e-4)


async def test_statistics_are_those_of_before_when_the_engine_is_opened_again(tmp_path: Path) -> None:
    made = {"dimension": DIMENSION, "fingerprint": FINGERPRINT}
    index = await EmbeddedIndex.open(tmp_path, **made)  # type: ignore[arg-type]
    assert await index.commit_record(await write(index, "d", TEXTS))
    assert await index.commit_record(await write(index, "e", ["apple"]))
    assert await index.commit_record(await write(index, "e", ["apple", "pear"], generation=2))
    under_way = await write(index, "f", ["apple", "apple"])
    await index.close()
    index = await EmbeddedIndex.open(tmp_path, **made)  # type: ignore[arg-type]
    assert await apple(index) == pytest.approx(expected(3, 5), rel=1e-4)
    # What was written before counts, though nobody remembers it, and what is written now.
    await index.upsert_chunks([make_chunk("f", 2, "apple")])
    assert await index.commit_record(replace(under_way, chunk_count=3))
    assert await apple(index) == pytest.approx(expected(6, 8), rel=1e-4)
    await index.optimize()
    assert await apple(index) == pytest.approx(expected(6, 8), rel=1e-4)
    await index.close()


def test_what_was_begun_first_is_forgotten_first() -> None:
    under_way = UnderWay(chunks_max=3)
    for document_id in ("a", "b"):
        for number in range(2):
            under_way.note(make_chunk(document_id, number, f"word{number}"))
    assert under_way.take(key_of("a"), 1) is None
    written = under_way.take(key_of("b"), 1)
    assert written is not None
    assert sorted(written.terms) == [0, 1]
    assert under_way.take(key_of("b"), 1) is None
    under_way.note(make_chunk("c", 0, "word", generation=2))
    under_way.forget(key_of("c"), lambda generation: generation < 2)
    assert under_way.knows(key_of("c"), 2)
    under_way.forget(key_of("c"), lambda generation: generation < 3)
    assert not under_way.knows(key_of("c"), 2)
