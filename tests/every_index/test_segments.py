"""What every index must do for documents that grow: records that list segments, and what becomes of their chunks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import InvalidInput
from ingest.index.interface import READ_MAX, DocumentRecord, Scope, Segment, VectorIndex
from ingest.index.points import read_state, segments_of, state_payload
from ingest.index.records import RecordState, committing
from ingest.index.wire import record_from_message, record_to_message
from ingest.sparse import sparse_query
from tests.indexes import (
    EVERYWHERE,
    axis,
    key_of,
    make_chunk,
    make_record,
    places,
    search_dense,
    search_sparse,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

KEY = key_of("d")


def grown(*sizes: tuple[int, int]) -> DocumentRecord:
    """The record of a document whose segments have these generations and numbers of chunks."""
    record = make_record("d", generation=sizes[-1][0], chunk_count=sum(count for _, count in sizes))
    return replace(record, earlier=segments_of(sizes[:-1]))


async def write(index: VectorIndex, *sizes: tuple[int, int], document_id: str = "d") -> None:
    first = 0
    for generation, count in sizes:
        numbers = range(first, first + count)
        await index.upsert_chunks(
            [make_chunk(document_id, n, f"word v{generation}", generation=generation) for n in numbers]
        )
        first += count


def test_a_record_says_which_generation_wrote_a_chunk() -> None:
    record = grown((2, 3), (5, 1), (6, 2))
    assert record.segments == (Segment(2, 0, 3), Segment(5, 3, 1), Segment(6, 4, 2))
    assert record.generations == (2, 5, 6)
    assert [record.generation_of(place) for place in range(record.chunk_count)] == [2, 2, 2, 5, 6, 6]
    whole = make_record("d", generation=7, chunk_count=4)
    assert (whole.segments, whole.generations, whole.generation_of(3)) == ((Segment(7, 0, 4),), (7,), 7)


@given(st.lists(st.tuples(st.integers(1, 2**40), st.integers(1, 10**6)), min_size=1, max_size=64))
def test_segments_travel(sizes: list[tuple[int, int]]) -> None:
    record = grown(*sizes)
    assert record_from_message(record_to_message(record)) == record
    assert read_state(state_payload(KEY, RecordState(record.generation, record))) == (
        KEY,
        RecordState(record.generation, record),
    )


async def test_a_grown_record_comes_back(index: VectorIndex) -> None:
    record = grown((1, 3), (2, 1), (9, 2))
    assert await index.commit_record(record)
    assert await index.get_records([KEY]) == {KEY: record}
    assert (await index.list_records("default", "", 10))[0] == [record]
    assert await index.fence(KEY, 0) == record


async def test_a_record_is_committed_in_place_of_just_one(index: VectorIndex) -> None:
    second, third = grown((1, 3), (2, 1)), grown((1, 3), (3, 1))
    assert not await index.commit_record(second, in_place_of=1)  # there is none
    assert await index.commit_record(make_record("d", generation=1, chunk_count=3))
    assert await index.commit_record(third, in_place_of=1)
    assert await index.commit_record(third, in_place_of=1)  # the answer was lost
    assert not await index.commit_record(second, in_place_of=1)  # another came first
    assert not await index.commit_record(grown((1, 3), (4, 1)), in_place_of=1)  # and a later one than that, too
    assert await index.get_records([KEY]) == {KEY: third}
    fenced = grown((1, 3), (3, 1), (5, 1))
    await index.fence(KEY, 5)
    assert not await index.commit_record(fenced, in_place_of=3)
    assert await index.commit_record(replace(third, title="Changed"), in_place_of=3)
    await index.delete_record(KEY, 6)
    assert not await index.commit_record(grown((1, 3), (3, 1), (7, 1)), in_place_of=3)
    assert await index.get_records([KEY]) == {}


async def test_some_generations_are_counted_together(index: VectorIndex) -> None:
    await write(index, (1, 3), (2, 2), (4, 1))
    await write(index, (2, 5), document_id="other")
    assert await index.count_chunks(KEY, 1, 4) == 4
    assert await index.count_chunks(KEY, 1, 2, 3, 4) == 6
    assert await index.count_chunks(KEY, 3) == 0


async def test_what_a_record_lists_is_kept(index: VectorIndex) -> None:
    await write(index, (1, 3), (2, 2), (3, 4), (4, 1), (6, 2))
    await write(index, (2, 5), document_id="other")
    assert await index.delete_chunks(KEY, below=6, keep=(1, 4, 6)) == 6
    assert await index.delete_chunks(KEY, below=6, keep=(1, 4, 6)) == 0
    assert [await index.count_chunks(KEY, generation) for generation in (1, 2, 3, 4, 6)] == [3, 0, 0, 1, 2]
    assert await index.count_chunks(key_of("other"), 2) == 5
    assert await index.delete_chunks(KEY, below=6) == 4
    with pytest.raises(InvalidInput, match="keep"):
        await index.delete_chunks(KEY, generation=6, keep=(6,))


async def test_a_scope_of_several_generations(index: VectorIndex) -> None:
    await write(index, (1, 2), (2, 2), (3, 2))
    await write(index, (1, 1), (3, 1), document_id="e")
    scope = Scope(generations={"d": (1, 3), "e": (3,)})
    inside = {("d", 1, 0), ("d", 1, 1), ("d", 3, 4), ("d", 3, 5), ("e", 3, 1)}
    assert set(places(await search_dense(index, axis(0), 20, scope))) == inside
    assert set(places(await search_sparse(index, sparse_query("word"), 20, scope))) == inside


async def test_a_scope_without_some_generations(index: VectorIndex) -> None:
    await write(index, (1, 2), (2, 2), (3, 2))
    await write(index, (1, 1), (2, 1), document_id="e")
    await write(index, (2, 1), document_id="f")
    scope = Scope(without={"d": (1, 2), "e": (2,), "nobody": (1,)})
    inside = {("d", 3, 4), ("d", 3, 5), ("e", 1, 0), ("f", 2, 0)}
    assert set(places(await search_dense(index, axis(0), 20, scope))) == inside
    hits = await search_sparse(index, sparse_query("word"), 20, scope)
    assert set(places(hits)) == inside
    # Document frequencies are still the tenant's.
    everywhere = {hit.chunk: hit.score for hit in await search_sparse(index, sparse_query("word"), 20, EVERYWHERE)}
    assert {hit.chunk: pytest.approx(everywhere[hit.chunk]) for hit in hits} == {hit.chunk: hit.score for hit in hits}
    both = Scope(generations={"d": (2, 3)}, without={"d": (2,)})
    assert set(places(await search_dense(index, axis(0), 20, both))) == {("d", 3, 4), ("d", 3, 5)}
    too_many = Scope(without={str(number): (1,) for number in range(READ_MAX + 1)})
    with pytest.raises(InvalidInput, match="scope names 1025 documents"):
        await search_dense(index, axis(0), 5, too_many)


@given(
    fence=st.integers(0, 5),
    visible=st.integers(0, 5),
    generation=st.integers(1, 6),
    in_place_of=st.none() | st.integers(0, 6),
)
def test_what_is_committed_follows_the_fence_and_the_condition(
    fence: int, visible: int, generation: int, in_place_of: int | None
) -> None:
    before = RecordState(max(fence, visible), make_record("d", generation=visible) if visible else None)
    record = make_record("d", generation=generation, chunk_count=7)
    after = committing(record, in_place_of=in_place_of)(before)
    allowed = generation > before.fence and (in_place_of is None or in_place_of == visible)
    assert (after is not None) == (allowed or generation == visible)
    if after:
        assert after.record == record
        assert after.fence == max(before.fence, generation)
