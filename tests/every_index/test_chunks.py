"""What every index must do with chunks, asked of each: embedded, behind the owner, on Qdrant (a server where given)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from encoder.errors import InvalidInput
from ingest.filters import Equals, Range
from ingest.index.interface import (
    BATCH_CHUNKS_MAX,
    READ_MAX,
    IndexAnswer,
    ReadConsistency,
    Scope,
    SparseVector,
    VectorIndex,
)
from ingest.index.points import segments_of
from ingest.index.server import ServerIndex
from ingest.sparse import sparse_passage, sparse_query
from tests.indexes import (
    DIMENSION,
    EVERYWHERE,
    SERVER_URL,
    STRANGE_IDS,
    axis,
    key_of,
    make_chunk,
    make_record,
    places,
    search_dense,
    search_sparse,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


async def test_chunks_come_back_as_they_were_written(index: VectorIndex) -> None:
    chunks = [make_chunk(document_id, 0, f"Text of {document_id}\n\t\u2028é") for document_id in STRANGE_IDS]
    await index.upsert_chunks(chunks)
    for indexed in chunks:
        document_id = indexed.chunk.document_id
        assert await index.get_chunks(key_of(document_id), 1, 0, 5) == [indexed.chunk]
        assert await index.count_chunks(key_of(document_id), 1) == 1
        assert await index.count_chunks(key_of(document_id), 2) == 0
    assert (await index.stats()).chunk_count == len(STRANGE_IDS)
    assert (await index.stats()).document_count == 0


async def test_get_chunks_gives_the_range_that_exists_in_order(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d", number, f"number {number}") for number in (4, 0, 2, 1, 3)])
    assert [chunk.chunk_index for chunk in await index.get_chunks(key_of("d"), 1, 1, 3)] == [1, 2, 3]
    assert [chunk.chunk_index for chunk in await index.get_chunks(key_of("d"), 1, 3, 900)] == [3, 4]
    assert await index.get_chunks(key_of("d"), 1, 3, 2) == []
    assert await index.get_chunks(key_of("nobody"), 1, 0, 3) == []


async def test_writing_twice_doubles_nothing(index: VectorIndex) -> None:
    for _ in range(2):
        await index.upsert_chunks([make_chunk("d", number, "same words") for number in range(3)])
        await index.commit_record(make_record("d", chunk_count=3))
    assert await index.count_chunks(key_of("d"), 1) == 3
    stats = await index.stats()
    assert (stats.document_count, stats.chunk_count) == (1, 3)
    assert len(await search_sparse(index, sparse_query("same"), 10, EVERYWHERE)) == 3


async def test_dense_search_ranks_by_cosine_and_never_finds_records(index: VectorIndex) -> None:
    await index.commit_record(make_record("d"))
    await index.upsert_chunks([make_chunk("d", number, f"number {number}") for number in range(DIMENSION)])
    query = (axis(2) + 0.5 * axis(5)) * 7  # cosine does not care for length
    hits = await search_dense(index, query.astype(np.float32), 3, EVERYWHERE)
    assert places(hits)[:2] == [("d", 1, 2), ("d", 1, 5)]
    assert hits[0].score == pytest.approx(1 / np.sqrt(1.25), abs=1e-5)
    assert hits[1].score == pytest.approx(0.5 / np.sqrt(1.25), abs=1e-5)
    assert len(hits) == 3
    assert len(await search_dense(index, axis(0), 1000, EVERYWHERE)) == DIMENSION


async def test_sparse_search_scores_by_bm25(index: VectorIndex) -> None:
    texts = ["red apple", "green apple tree", "a yellow lemon", "apple apple pie"]
    await index.upsert_chunks([make_chunk("d", number, text) for number, text in enumerate(texts)])
    # Neither records nor other tenants' chunks count.
    await index.commit_record(make_record("d", chunk_count=4))
    await index.fence(key_of("e"), 1)
    await index.upsert_chunks([make_chunk("d", number, "apple pie", tenant="other") for number in range(3)])
    await index.commit_record(make_record("d", chunk_count=3, tenant="other"))
    query = sparse_query("Apples and pies")
    hits = await search_sparse(index, query, 10, EVERYWHERE)
    assert {place[2] for place in places(hits)} == {0, 1, 3}
    assert hits[0].chunk.chunk_index == 3

    def inverse_document_frequency(count: int) -> float:
        return float(np.log(1 + (len(texts) - count + 0.5) / (count + 0.5)))

    for hit in hits:
        weights = dict(zip(*_lists(sparse_passage(texts[hit.chunk.chunk_index])), strict=True))
        apple, pie = (sparse_query(word).indices[0] for word in ("apple", "pie"))
        expected = inverse_document_frequency(3) * weights.get(apple, 0)
        expected += inverse_document_frequency(1) * weights.get(pie, 0)
        assert hit.score == pytest.approx(expected, rel=1e-4)


def _lists(sparse: SparseVector) -> tuple[list[int], list[float]]:
    return sparse.indices.tolist(), sparse.values.tolist()


async def test_both_halves_are_found_at_once_with_what_is_committed_of_them(index: VectorIndex) -> None:
    for name, generation in (("new", 1), ("old", 1), ("old", 2), ("gone", 1), ("grown", 1), ("grown", 2), ("grown", 3)):
        await index.upsert_chunks([make_chunk(name, 0, "pear", generation=generation, direction=0)])
    await index.upsert_chunks([make_chunk("under way", 0, "fig", direction=1)])
    await index.upsert_chunks([make_chunk("old", 0, "pear", tenant="other")])
    await index.commit_record(make_record("new", metadata={"year": 2020}))
    for generation in (1, 2):
        await index.commit_record(make_record("old", generation=generation, metadata={"year": 1999}))
    await index.commit_record(make_record("gone"))
    await index.delete_record(key_of("gone"), 2)
    grown = replace(make_record("grown", generation=3, chunk_count=2), earlier=segments_of([(1, 1)]))
    await index.commit_record(grown)

    def committed(answer: IndexAnswer) -> dict[str, list[int]]:
        return {name: list(generations) for name, generations in answer.committed.items()}

    answer = await index.search(axis(1), sparse_query("pear"), 20, EVERYWHERE)
    assert {hit.chunk.document_id for hit in answer.dense} == {"new", "old", "gone", "grown", "under way"}
    assert places(answer.dense)[0] == ("under way", 1, 0)
    assert len(answer.sparse) == 7
    assert committed(answer) == {"new": [1], "old": [2], "grown": [1, 3]}
    assert answer.dense_s > 0
    assert answer.sparse_s > 0
    few = await index.search(axis(1), None, 1, EVERYWHERE)
    assert (places(few.dense), list(few.sparse), committed(few)) == ([("under way", 1, 0)], [], {})
    # What is left out because it was not committed may be so by now.
    answer = await index.search(axis(1), None, 1, Scope(without={"grown": [2], "gone": [1], "never": [1]}))
    assert committed(answer) == {"grown": [1, 3]}
    answer = await index.search(axis(0), sparse_query("pear"), 20, Scope(filter=Range("metadata.year", above=2000)))
    assert committed(answer) == {"new": [1]}
    answer = await index.search(axis(1), None, 1, Scope(without={"old": [1]}, filter=Equals("metadata.year", 2000)))
    assert committed(answer) == {}
    assert committed(await index.search(axis(0), None, 20, Scope("other"))) == {}
    nothing = await index.search(None, None, 5, EVERYWHERE)
    assert (list(nothing.dense), list(nothing.sparse), committed(nothing)) == ([], [], {})


async def test_the_first_hits_may_be_read_along(index: VectorIndex) -> None:
    for place, name in enumerate(("a", "b", "c")):
        await index.upsert_chunks([make_chunk(name, 0, "pear " * (1 + place), direction=place)])
        await index.commit_record(make_record(name))
    asked = (
        (axis(1), None, "dense"),
        (axis(1), sparse_query("pear"), "dense"),
        (None, sparse_query("pear"), "sparse"),
    )
    for embedding, sparse, half in asked:
        answer = await index.search(embedding, sparse, 3, EVERYWHERE, read_first=2)
        first = [hit.chunk for hit in getattr(answer, half)[:2]]
        chunks, found = answer.read
        assert list(chunks) in ([], first)  # none where that would be a call of its own
        if chunks:
            assert answer.read == await index.read_hits(first)
        assert not found.keys() - {key_of(key.document_id) for key in first}
        assert (await index.search(embedding, sparse, 3, EVERYWHERE)).read == ({}, {})
    with pytest.raises(InvalidInput, match="read_first asks for 1025 entries"):
        await index.search(axis(1), None, 3, EVERYWHERE, read_first=READ_MAX + 1)


async def test_hits_are_read_with_the_records_of_their_documents(index: VectorIndex) -> None:
    chunks = {name: [make_chunk(name, place, f"é {name}") for place in range(3)] for name in ("a", "b", "gone")}
    for name, made in chunks.items():
        await index.upsert_chunks(made)
        await index.commit_record(make_record(name, chunk_count=3))
    await index.delete_record(key_of("gone"), 2)
    keys = [chunks[name][place].chunk.chunk_key for name, place in (("a", 2), ("a", 0), ("b", 1), ("gone", 0))]
    missing = [keys[0]._replace(chunk_index=9), keys[0]._replace(document_id="never")]
    found, records = await index.read_hits([*keys, *missing])
    assert found == {key: chunks[key.document_id][key.chunk_index].chunk for key in keys}
    assert records == {key_of(name): make_record(name, chunk_count=3) for name in ("a", "b")}
    assert await index.read_hits([]) == ({}, {})
    with pytest.raises(InvalidInput, match="chunks"):
        await index.read_hits([keys[0]._replace(chunk_index=place) for place in range(READ_MAX + 1)])


async def test_a_query_without_terms_finds_nothing_by_words(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d", 0, "the words"), make_chunk("d", 1, "§ ! ?")])
    assert await search_sparse(index, sparse_query("the and of !"), 5, EVERYWHERE) == []
    assert await search_sparse(index, sparse_query("unheard"), 5, EVERYWHERE) == []
    # A chunk without terms is still found by its embedding.
    assert places(await search_dense(index, axis(1), 1, EVERYWHERE)) == [("d", 1, 1)]


async def test_deleting_one_generation_and_all_before_one(index: VectorIndex) -> None:
    for generation, count in ((1, 3), (2, 2), (3, 1), (4, 2)):
        chunks = [make_chunk("d", number, f"v{generation}", generation=generation) for number in range(count)]
        await index.upsert_chunks(chunks)
    await index.upsert_chunks([make_chunk("other", 0, "stays"), make_chunk("d", 0, "stays", tenant="other")])
    await index.commit_record(make_record("d", generation=3, chunk_count=2))
    key = key_of("d")
    assert await index.delete_chunks(key, below=3) == 5
    assert await index.delete_chunks(key, below=3) == 0
    assert [await index.count_chunks(key, generation) for generation in (1, 2, 3, 4)] == [0, 0, 1, 2]
    assert await index.delete_chunks(key, generation=4) == 2
    assert await index.delete_chunks(key, generation=4) == 0
    assert set(places(await search_dense(index, axis(0), 10, EVERYWHERE))) == {("d", 3, 0), ("other", 1, 0)}
    assert await search_sparse(index, sparse_query("v1 v2 v4"), 10, EVERYWHERE) == []
    assert await index.count_chunks(key_of("d", "other"), 1) == 1
    assert await index.delete_chunks(key, generation=3) == 1
    assert key in await index.get_records([key])


async def test_deleted_chunks_no_longer_count_in_document_frequencies(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d", number, "rare") for number in range(5)])
    await index.upsert_chunks([make_chunk("other", number, "common") for number in range(5)])
    await index.commit_record(make_record("d", chunk_count=5))
    await index.commit_record(make_record("other", chunk_count=5))
    await index.delete_chunks(key_of("d"), generation=1)
    await index.upsert_chunks([make_chunk("new", 0, "rare")])
    await index.commit_record(make_record("new"))
    (hit,) = await search_sparse(index, sparse_query("rare"), 5, EVERYWHERE)
    assert places([hit]) == [("new", 1, 0)]
    weight = sparse_passage("rare").values[0]
    if SERVER_URL and isinstance(index, ServerIndex):
        return  # a server forgets deleted chunks when it vacuums, in its own time
    assert hit.score == pytest.approx(weight * np.log(1 + (6 - 1 + 0.5) / 1.5), rel=1e-4)


async def test_a_scope_leaves_out_other_documents_and_generations(index: VectorIndex) -> None:
    for document_id in ("a", "b", "c"):
        for generation in (1, 2):
            chunks = [make_chunk(document_id, number, "same word", generation=generation) for number in range(2)]
            await index.upsert_chunks(chunks)
    await index.upsert_chunks([make_chunk("a", 0, "same", generation=2, tenant="other")])
    scope = Scope(generations={"a": [2], "b": [1], "nobody": [1]})
    inside = {("a", 2, 0), ("a", 2, 1), ("b", 1, 0), ("b", 1, 1)}
    hits = await search_dense(index, axis(0), 10, scope)
    assert set(places(hits)) == inside
    assert set(places(hits[:2])) == {("a", 2, 0), ("b", 1, 0)}
    assert {hit.chunk.tenant for hit in hits} == {"default"}
    assert len(await search_dense(index, axis(0), 3, scope)) == 3
    hits = await search_sparse(index, sparse_query("word"), 10, scope)
    assert set(places(hits)) == inside
    # Document frequencies are the tenant's, not the scope's.
    everywhere = await search_sparse(index, sparse_query("word"), 12, EVERYWHERE)
    assert len(everywhere) == 12
    assert hits[0].score == pytest.approx(everywhere[0].score)
    assert places(await search_dense(index, axis(0), 10, Scope("other", {"a": [2], "b": [1]}))) == [("a", 2, 0)]


async def test_a_scope_of_nothing_and_one_of_many(index: VectorIndex) -> None:
    await index.upsert_chunks([make_chunk("d700", 0, "word")])
    for scope in (Scope(generations={}), Scope("nobody"), Scope(generations={"d700": [2]})):
        assert await search_dense(index, axis(0), 10, scope) == []
        assert await search_sparse(index, sparse_query("word"), 10, scope) == []
    many = Scope(generations={f"d{number}": [1 + number % 7] for number in range(READ_MAX)})
    assert many.generations is not None
    assert many.generations["d700"] == [1]
    assert places(await search_dense(index, axis(0), 10, many)) == [("d700", 1, 0)]
    assert places(await search_sparse(index, sparse_query("word"), 10, many)) == [("d700", 1, 0)]


async def test_tenants_do_not_see_each_other(index: VectorIndex) -> None:
    for tenant, text in (("default", "red"), ("other", "green"), ("default-2", "blue")):
        await index.upsert_chunks([make_chunk("d", 0, f"{text} word", tenant=tenant)])
    for tenant, text in (("default", "red"), ("other", "green"), ("default-2", "blue")):
        (chunk,) = await index.get_chunks(key_of("d", tenant), 1, 0, 5)
        assert (chunk.key, chunk.text) == (key_of("d", tenant), f"{text} word")
        for hits in (
            await search_dense(index, axis(0), 10, Scope(tenant)),
            await search_sparse(index, sparse_query("word"), 10, Scope(tenant)),
        ):
            assert [hit.chunk for hit in hits] == [chunk.chunk_key]
            assert await index.read_chunks([hit.chunk for hit in hits]) == {chunk.chunk_key: chunk}
        assert await search_sparse(index, sparse_query("red green blue"), 10, Scope(tenant)) != []
    assert await index.delete_chunks(key_of("d", "other"), below=9) == 1
    assert await search_dense(index, axis(0), 10, Scope("other")) == []
    assert len(await search_dense(index, axis(0), 10, EVERYWHERE)) == 1
    assert (await index.stats()).chunk_count == 2


async def test_chunks_and_their_embeddings_are_read_by_name(index: VectorIndex) -> None:
    written = [make_chunk(name, 0, f"word {name}", generation=3, direction=2) for name in STRANGE_IDS]
    written.append(replace(make_chunk("d", 1, "longer"), embedding=axis(1) * 5 + axis(2) * 12))
    await index.upsert_chunks(written)
    keys = [indexed.chunk.chunk_key for indexed in written]
    missing = [keys[0]._replace(tenant="other"), keys[0]._replace(generation=2), keys[0]._replace(chunk_index=7)]
    assert await index.read_chunks([*missing, *keys]) == {each.chunk.chunk_key: each.chunk for each in written}
    found = await index.get_embeddings([*missing, *keys])
    assert found.keys() == set(keys)
    for indexed in written:
        expected = indexed.embedding / np.linalg.norm(indexed.embedding)
        assert found[indexed.chunk.chunk_key] == pytest.approx(expected, abs=1e-6)
        assert found[indexed.chunk.chunk_key].dtype == np.float32
    assert await index.read_chunks([]) == {}
    assert await index.get_embeddings([]) == {}


@pytest.mark.parametrize("consistency", ReadConsistency)
async def test_reads_of_every_consistency_find_what_was_written(
    index: VectorIndex, consistency: ReadConsistency
) -> None:
    await index.upsert_chunks([made := make_chunk("d", 0, "word")])
    await index.commit_record(record := make_record("d"))
    scope = Scope(consistency=consistency)
    (hit,) = await search_dense(index, axis(0), 5, scope)
    assert [hit.chunk] == [found.chunk for found in await search_sparse(index, sparse_query("word"), 5, scope)]
    assert await index.get_records([key_of("d")], consistency=consistency) == {key_of("d"): record}
    assert await index.read_chunks([hit.chunk], consistency=consistency) == {hit.chunk: made.chunk}


async def test_flushing_changes_nothing_that_is_seen(index: VectorIndex) -> None:
    await index.flush()
    await index.upsert_chunks([make_chunk("d", 0, "kept")])
    for _ in range(2):
        await index.flush()
        assert places(await search_sparse(index, sparse_query("kept"), 5, EVERYWHERE)) == [("d", 1, 0)]


async def test_what_breaks_a_limit_is_refused(index: VectorIndex) -> None:
    too_many = Scope(generations={str(number): [1] for number in range(READ_MAX + 1)})
    for call, field in (
        (search_dense(index, np.zeros(DIMENSION + 1, dtype=np.float32), 5, EVERYWHERE), "embedding"),
        (search_dense(index, np.full(DIMENSION, np.nan, dtype=np.float32), 5, EVERYWHERE), "embedding"),
        (search_dense(index, axis(0), 0, EVERYWHERE), "limit"),
        (search_dense(index, axis(0), 1001, EVERYWHERE), "limit"),
        (search_sparse(index, sparse_query("x1"), 0, EVERYWHERE), "limit"),
        (search_dense(index, axis(0), 5, too_many), "scope"),
        (search_sparse(index, sparse_query("x1"), 5, too_many), "scope"),
        (index.get_records([key_of("d")] * 1025), "keys"),
        (index.get_fences([key_of("d")] * 1025), "keys"),
        (index.list_records("default", "", 0), "limit"),
        (index.list_records("default", "", 1025), "limit"),
        (index.list_records("default", "nonsense", 5), "after"),
        (index.commit_record(make_record("d", generation=0)), "generation"),
        (index.delete_record(key_of("d"), 0), "generation"),
        (index.fence(key_of("d"), -1), "generation"),
        (index.delete_chunks(key_of("d")), "below"),
        (index.delete_chunks(key_of("d"), generation=1, below=1), "below"),
        (index.get_chunks(key_of("d"), 1, 0, 1024), "last"),
        (index.upsert_chunks([make_chunk("d", 0, "x")] * (BATCH_CHUNKS_MAX + 1)), "chunks"),
    ):
        with pytest.raises(InvalidInput) as caught:
            await call
        assert caught.value.field == field


async def test_a_full_batch_of_long_chunks_travels(index: VectorIndex) -> None:
    text = "日本語 " * 1024
    chunks = [make_chunk("d", number, text) for number in range(BATCH_CHUNKS_MAX)]
    await index.upsert_chunks(chunks)
    assert await index.count_chunks(key_of("d"), 1) == BATCH_CHUNKS_MAX
    assert len(await index.get_chunks(key_of("d"), 1, 0, BATCH_CHUNKS_MAX - 1)) == BATCH_CHUNKS_MAX
    assert len(await search_dense(index, axis(0), BATCH_CHUNKS_MAX, EVERYWHERE)) == BATCH_CHUNKS_MAX
    await index.upsert_chunks([])
