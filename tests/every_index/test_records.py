"""What every index must do with records, asked of each: commits, fences, tombstones, pages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ingest.index.interface import READ_MAX, VectorIndex
from tests.indexes import (
    EVERYWHERE,
    STRANGE_IDS,
    axis,
    key_of,
    make_chunk,
    make_record,
    places,
    search_dense,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

KEY = key_of("d")


async def visible(index: VectorIndex) -> int | None:
    """The committed generation of the document."""
    record = (await index.get_records([KEY])).get(KEY)
    return record.generation if record else None


async def test_records_come_back_and_are_replaced(index: VectorIndex) -> None:
    records = [make_record(document_id) for document_id in STRANGE_IDS]
    for record in records:
        assert await index.commit_record(record)
    found = await index.get_records([*map(key_of, STRANGE_IDS), key_of("nobody")])
    assert found == {record.key: record for record in records}
    types = {name: type(value) for name, value in records[0].metadata.items()}
    assert {name: type(value) for name, value in found[records[0].key].metadata.items()} == types
    newer = make_record("a", generation=2, chunk_count=7, metadata={})
    assert await index.commit_record(newer)
    assert await index.get_records([key_of("a")]) == {key_of("a"): newer}
    assert await index.get_records([]) == {}
    assert (await index.stats()).document_count == len(STRANGE_IDS)


async def test_the_same_generation_again_replaces_its_record(index: VectorIndex) -> None:
    record = make_record("d", generation=3)
    changed = replace(record, metadata={"language": "go"}, metadata_hash="ef" * 32)
    assert await index.commit_record(record)
    assert await index.commit_record(record)
    assert await index.commit_record(changed)
    assert await index.get_records([KEY]) == {KEY: changed}
    # Fenced far above, it may still be replaced, and stays fenced.
    assert await index.fence(KEY, 9) == changed
    assert await index.commit_record(record)
    assert await index.get_records([KEY]) == {KEY: record}
    assert await index.get_fences([KEY]) == {KEY: 9}
    assert not await index.commit_record(make_record("d", generation=9))
    assert await index.commit_record(make_record("d", generation=10))


async def test_an_older_generation_is_not_committed(index: VectorIndex) -> None:
    assert await index.commit_record(make_record("d", generation=3))
    for generation in (1, 2):
        assert not await index.commit_record(make_record("d", generation=generation))
    assert await visible(index) == 3
    assert await index.get_fences([KEY]) == {KEY: 3}


async def test_what_is_fenced_is_not_committed(index: VectorIndex) -> None:
    assert await index.commit_record(make_record("d", generation=1))
    assert await index.fence(KEY, 3) == make_record("d", generation=1)
    for generation in (2, 3):
        assert not await index.commit_record(make_record("d", generation=generation))
    assert await visible(index) == 1
    assert await index.fence(KEY, 2) == make_record("d", generation=1)
    assert await index.get_fences([KEY]) == {KEY: 3}
    assert await index.commit_record(make_record("d", generation=4))
    assert await visible(index) == 4
    assert await index.get_fences([KEY]) == {KEY: 4}


async def test_a_document_is_fenced_before_it_comes(index: VectorIndex) -> None:
    assert await index.fence(KEY, 0) is None
    assert await index.get_fences([KEY]) == {}
    for _ in range(2):
        assert await index.fence(KEY, 5) is None
    assert await index.get_fences([KEY, key_of("nobody")]) == {KEY: 5}
    assert await index.get_records([KEY]) == {}
    assert (await index.stats()).document_count == 0
    assert not await index.commit_record(make_record("d", generation=5))
    assert await index.commit_record(make_record("d", generation=6))
    assert await visible(index) == 6


async def test_deleting_leaves_a_tombstone_that_stale_writers_meet(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d", 0, "one", generation=2)])
    await index.commit_record(make_record("d", generation=2))
    assert await index.delete_record(KEY, 4)
    assert not await index.delete_record(KEY, 4)
    assert await index.get_records([KEY]) == {}
    assert await index.get_fences([KEY]) == {KEY: 4}
    assert (await index.stats()).document_count == 0
    assert await index.list_records("default", "", 10) == ([], "")
    assert await index.fence(KEY, 3) is None
    for generation in (2, 3, 4):  # that which was committed, too
        assert not await index.commit_record(make_record("d", generation=generation))
    assert await visible(index) is None
    # Its chunks stay until they are deleted.
    assert places(await search_dense(index, axis(0), 5, EVERYWHERE)) == [("d", 2, 0)]
    assert await index.commit_record(make_record("d", generation=5))
    assert await visible(index) == 5


async def test_deleting_leaves_a_newer_document_alone(index: VectorIndex) -> None:
    await index.commit_record(make_record("d", generation=5))
    assert not await index.delete_record(KEY, 4)
    assert await visible(index) == 5
    assert await index.get_fences([KEY]) == {KEY: 5}
    await index.fence(KEY, 8)
    assert await index.delete_record(KEY, 6)
    assert await index.get_fences([KEY]) == {KEY: 8}


async def test_deleting_what_never_came_refuses_what_is_on_its_way(index: VectorIndex) -> None:
    assert not await index.delete_record(KEY, 2)
    assert not await index.commit_record(make_record("d", generation=2))
    assert await index.commit_record(make_record("d", generation=3))


async def test_a_tombstone_is_dropped_only_while_it_is_of_its_generation(index: VectorIndex) -> None:
    await index.drop_tombstone(KEY, 4)
    await index.commit_record(make_record("d", generation=4))
    await index.drop_tombstone(KEY, 4)
    assert await visible(index) == 4
    await index.delete_record(KEY, 5)
    await index.drop_tombstone(KEY, 4)
    assert await index.get_fences([KEY]) == {KEY: 5}
    await index.fence(KEY, 6)
    await index.drop_tombstone(KEY, 5)
    assert await index.get_fences([KEY]) == {KEY: 6}
    await index.drop_tombstone(KEY, 6)
    assert await index.get_fences([KEY]) == {}
    assert await index.commit_record(make_record("d", generation=1))


async def test_records_are_listed_page_by_page(index: VectorIndex) -> None:
    ids = {f"d{number}" for number in range(23)}
    for document_id in sorted(ids):
        await index.commit_record(make_record(document_id))
    await index.commit_record(make_record("theirs", tenant="other"))
    await index.upsert_chunks([make_chunk("d1", number, "chunk") for number in range(5)])
    await index.delete_record(key_of("d7"), 2)
    await index.fence(key_of("never came"), 1)
    ids.remove("d7")

    async def read_all(limit: int) -> list[str]:
        found, after = await index.list_records("default", "", limit)
        while after:
            page, after = await index.list_records("default", after, limit)
            assert len(page) <= limit
            found += page
        assert all(record == make_record(record.document_id) for record in found)
        return [record.document_id for record in found]

    order = await read_all(5)
    assert len(order) == len(ids)
    assert set(order) == ids
    assert await read_all(1) == order
    assert await read_all(22) == order
    assert await read_all(READ_MAX) == order
    # What comes or goes meanwhile moves nothing else.
    page, after = await index.list_records("default", "", 5)
    await index.delete_record(key_of(page[0].document_id), 2)
    await index.delete_record(key_of(order[5]), 2)
    following, _ = await index.list_records("default", after, 3)
    assert [record.document_id for record in following] == order[6:9]
    assert [record.document_id for record in (await index.list_records("other", "", 5))[0]] == ["theirs"]
    assert await index.list_records("nobody", "", 5) == ([], "")


async def test_tenants_have_records_of_their_own(index: VectorIndex) -> None:
    theirs = key_of("d", "other")
    await index.commit_record(make_record("d", generation=3))
    assert await index.fence(theirs, 7) is None
    assert await index.commit_record(make_record("d", generation=8, tenant="other"))
    assert await index.get_fences([KEY, theirs]) == {KEY: 3, theirs: 8}
    found = await index.get_records([KEY, theirs])
    assert found == {KEY: make_record("d", generation=3), theirs: make_record("d", generation=8, tenant="other")}
    assert (await index.stats()).document_count == 2
    assert await index.delete_record(KEY, 4)
    assert list(await index.get_records([KEY, theirs])) == [theirs]
