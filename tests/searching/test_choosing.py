"""What is made of the candidates: by embedding, filtered, grouped, diversified, cut at a cosine, explained."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from encoder.errors import InvalidInput
from ingest.filters import AllOf, Equals, IsIn, Not, Range
from ingest.index.interface import ChunkKey, DocumentKey, IndexAnswer
from ingest.index.memory import MemoryIndex
from services.search.diversity import diversify, pool_size
from services.search.fusion import FusionWeights, ReciprocalRanks
from services.search.requests import FusionChoice, FusionMethod, SearchRequest
from services.search.results import SearchMode, SearchResult
from tests.indexes import make_record
from tests.searching.corpora import DIMENSION, QUERY, Corpus, at

DENSE, SPARSE, HYBRID = SearchMode.DENSE, SearchMode.SPARSE, SearchMode.HYBRID


def names(found: SearchResult) -> list[str]:
    return [hit.record.document_id for hit in found.hits]


async def test_an_embedding_is_asked_for_in_place_of_words(corpus: Corpus) -> None:
    await corpus.put_many(5)
    found = await corpus.searcher.search(SearchRequest(embedding=7 * QUERY, top_k=3))
    assert names(found) == ["d000", "d001", "d002"]
    assert [hit.score for hit in found.hits] == pytest.approx([1.0, 0.999, 0.998])
    assert found.query_tokens == 0
    both = await corpus.searcher.search(SearchRequest("pear", HYBRID, embedding=QUERY))
    assert all(hit.dense_score is not None for hit in both.hits)
    assert sum(hit.sparse_score is not None for hit in both.hits) == 4
    with pytest.raises(InvalidInput, match="601 tokens") as refusal:
        await corpus.searcher.search(SearchRequest("word " * 600, HYBRID, embedding=QUERY))
    assert refusal.value.field == "query"
    with pytest.raises(InvalidInput, match="7 numbers; the index has embeddings of 8"):
        await corpus.searcher.search(SearchRequest(embedding=QUERY[:7]))


async def test_filters_hold_for_every_mode(corpus: Corpus) -> None:
    for number in range(30):
        metadata = {"year": 2000 + number, "kind": "even" if number % 2 == 0 else "odd"}
        await corpus.put(f"d{number:02}", [(at(1 - number / 100), "apple")], metadata=metadata)
    wanted = AllOf(
        (Equals("metadata.kind", "odd"), Range("metadata.year", at_least=2010), Not(IsIn("document_id", ("d13",))))
    )
    for mode in SearchMode:
        request = SearchRequest("apple", mode, 100, embedding=None if mode is SPARSE else QUERY, filter=wanted)
        assert sorted(names(await corpus.searcher.search(request))) == [
            f"d{number}" for number in range(11, 30, 2) if number != 13
        ], mode


async def test_a_document_that_stopped_matching_is_not_shown(corpus: Corpus) -> None:
    """The index's own word on metadata may be a moment old: the record decides."""
    await corpus.put("d", [(QUERY, "apple")], metadata={"state": "open"})
    request = SearchRequest(embedding=QUERY, filter=Equals("metadata.state", "open"))
    assert names(await corpus.searcher.search(request)) == ["d"]
    record = (await corpus.index.get_records([DocumentKey("default", "d")]))[DocumentKey("default", "d")]
    await corpus.index.commit_record(replace(record, metadata={"state": "shut"}))
    assert names(await corpus.searcher.search(request)) == []


async def test_hits_are_grouped_by_document(corpus: Corpus) -> None:
    await corpus.put("long", [(at(1 - place / 50), f"apple {place}") for place in range(12)])
    await corpus.put("short", [(at(0.9), "apple core")])
    found = await corpus.searcher.search(SearchRequest(embedding=QUERY, top_k=2, group_chunks=3))
    assert found.hits == ()
    assert [(group.rank, group.record.document_id, group.score) for group in found.groups] == [
        (1, "long", pytest.approx(1.0)),
        (2, "short", pytest.approx(0.9)),
    ]
    assert [(hit.rank, hit.chunk.chunk_index) for hit in found.groups[0].hits] == [(1, 0), (2, 1), (3, 2)]
    assert len(found.groups[1].hits) == 1


async def test_a_long_document_does_not_crowd_out_others(corpus: Corpus) -> None:
    await corpus.put("long", [(at(0.99), f"apple {place}") for place in range(700)])
    for number in range(5):
        await corpus.put(f"short{number}", [(at(0.5 - number / 100), "apple core")])
    found = await corpus.searcher.search(SearchRequest(embedding=QUERY, top_k=4, group_chunks=1))
    assert [group.record.document_id for group in found.groups] == ["long", "short0", "short1", "short2"]


async def test_diverse_hits_differ(corpus: Corpus) -> None:
    for number in range(4):
        await corpus.put(f"same{number}", [(at(0.9 - number / 1000, axis=1), "apple")])
    await corpus.put("other", [(at(0.8, axis=2), "apple")])
    await corpus.put("third", [(at(0.7, axis=3), "apple")])
    plain = await corpus.searcher.search(SearchRequest(embedding=QUERY, top_k=3))
    assert names(plain) == ["same0", "same1", "same2"]
    diverse = await corpus.searcher.search(SearchRequest(embedding=QUERY, top_k=3, mmr_lambda=0.2, explain=True))
    assert names(diverse) == ["same0", "other", "third"]
    assert [hit.score for hit in diverse.hits] == pytest.approx([0.9, 0.8, 0.7])
    first, second, _ = (hit.explanation for hit in diverse.hits)
    assert first
    assert second
    assert first.similarity_before is None
    assert second.similarity_before == pytest.approx(0.9 * 0.8)
    assert second.diverse_score == pytest.approx(0.2 * 0.5 - 0.8 * 0.72)
    assert "placed by" in second.summary
    relevant = await corpus.searcher.search(SearchRequest(embedding=QUERY, top_k=3, mmr_lambda=1))
    assert names(relevant) == names(plain)


def test_diversity_of_nothing_and_of_equals() -> None:
    assert diversify([], {}, {}, [], 0.5, 3) == {}
    keys = [ChunkKey("default", "d", 1, place) for place in range(3)]
    scores = dict.fromkeys(keys, 0.5)
    same = dict.fromkeys(keys, QUERY)
    assert list(diversify(keys, scores, same, [], 0.5, 2)) == keys[:2]
    missing = {keys[1]: QUERY}  # the others left the index meanwhile
    assert len(diversify(keys, scores, missing, [keys[0]], 0.0, 5)) == 2
    assert [pool_size(wanted) for wanted in (1, 50, 1000)] == [100, 200, 400]


async def test_min_score_is_a_cosine_in_hybrid_searches_too(corpus: Corpus) -> None:
    """150 near chunks without the word fill the dense candidates; of two with the word one is near enough."""
    for number in range(150):
        await corpus.put(f"near{number:03}", [(at(0.9), "pear")])
    await corpus.put("word-near", [(at(0.6), "zebra")])
    await corpus.put("word-far", [(at(0.3), "zebra")])
    request = SearchRequest("zebra", HYBRID, 200, embedding=QUERY)
    everything = await corpus.searcher.search(replace(request, top_k=10))
    assert {"word-near", "word-far"} <= set(names(everything))
    by_words = [hit for hit in everything.hits if hit.dense_score is None]
    assert [hit.record.document_id for hit in by_words] == ["word-far", "word-near"]
    found = await corpus.searcher.search(replace(request, top_k=10, min_score=0.5))
    assert "word-near" in names(found)
    assert "word-far" not in names(found)
    near = next(hit for hit in found.hits if hit.record.document_id == "word-near")
    assert near.dense_score == pytest.approx(0.6)
    assert len((await corpus.searcher.search(replace(request, min_score=0.95))).hits) == 0
    dense = await corpus.searcher.search(SearchRequest(embedding=QUERY, top_k=200, min_score=0.5))
    assert len(dense.hits) == 151
    assert (dense.next_page_token, dense.depth_reached) == ("", False)


@pytest.mark.parametrize("fusion", [None, FusionWeights(intercept=-3, best_sparse=-0.5, dense_gap=1)])
async def test_an_explanation_adds_up_to_the_score(corpus: Corpus, fusion: FusionWeights | None) -> None:
    corpus.fusion = fusion
    await corpus.put_many(150)
    for mode in SearchMode:
        request = SearchRequest("pear", mode, 200, embedding=None if mode is SPARSE else QUERY, explain=True)
        found = await corpus.searcher.search(request)
        assert found.hits
        for hit in found.hits:
            why = hit.explanation
            assert why
            assert why.dense_part + why.sparse_part == pytest.approx(hit.score)
            assert (why.dense_rank is None) == (hit.dense_score is None)
            assert (why.sparse_rank is None) == (hit.sparse_score is None)
            if mode is HYBRID and fusion:
                assert why.dense_part == pytest.approx(why.dense_weight * why.dense_value)
                assert why.sparse_part == pytest.approx(why.sparse_weight * why.sparse_value)
            assert float(why.summary.split()[0]) == pytest.approx(hit.score, abs=1e-4)
        assert (found.hits[0].explanation.fusion != "") == (mode is HYBRID)
    plain = await corpus.searcher.search(replace(request, explain=False))
    assert all(hit.explanation is None for hit in plain.hits)


async def test_ranks_are_fused_as_asked(corpus: Corpus) -> None:
    corpus.fusion = FusionWeights(intercept=0, best_sparse=0, dense_gap=0)
    await corpus.put("near", [(at(0.9), "pear")])
    await corpus.put("word", [(at(0.1), "zebra")])

    async def scores(**choice: float) -> list[tuple[str, float]]:
        fusion = FusionChoice(FusionMethod.RECIPROCAL_RANK, **choice)
        found = await corpus.searcher.search(SearchRequest("zebra", embedding=QUERY, fusion=fusion))
        return [(hit.record.document_id, hit.score) for hit in found.hits]

    assert await scores() == [("word", pytest.approx(1 / 62 + 1 / 61)), ("near", pytest.approx(1 / 61))]
    assert await scores(sparse_weight=0) == [("near", pytest.approx(1 / 61)), ("word", pytest.approx(1 / 62))]
    assert await scores(dense_weight=0, rank_constant=1) == [("word", pytest.approx(1 / 2)), ("near", 0.0)]
    assert ReciprocalRanks(2, 3, 10).parts(1, None) == (pytest.approx(2 / 11), 0.0)


async def test_hits_without_texts_read_no_chunks(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    await corpus.put_many(3)

    async def refuse(*arguments: object, **options: object) -> dict:
        raise AssertionError

    monkeypatch.setattr(corpus.index, "read_chunks", refuse)
    found = await corpus.searcher.search(SearchRequest(embedding=QUERY, texts=False))
    assert [(hit.chunk.document_id, hit.chunk.text) for hit in found.hits] == [("d000", ""), ("d001", ""), ("d002", "")]


class Overtaking(MemoryIndex):
    """Counts calls; something happens before the next reading of hits or records."""

    def __init__(self) -> None:
        super().__init__(dimension=DIMENSION, fingerprint="f")
        self.calls: list[str] = []
        self.before_reading: Callable[[], Awaitable[object]] | None = None

    async def search(self, *arguments: Any, **options: Any) -> IndexAnswer:
        self.calls.append("search")
        return await super().search(*arguments, **options)

    async def read_hits(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append("read_hits")
        await self._happens()
        return await super().read_hits(*arguments, **options)

    async def get_records(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append("get_records")
        await self._happens()
        return await super().get_records(*arguments, **options)

    async def _happens(self) -> None:
        happens, self.before_reading = self.before_reading, None
        if happens:
            await happens()


@pytest.mark.parametrize("mode", list(SearchMode))
async def test_a_search_asks_the_index_twice(mode: SearchMode) -> None:
    index = Overtaking()
    corpus = Corpus(index)
    await corpus.put_many(60)
    request = SearchRequest("apple", mode, 3, embedding=None if mode is SPARSE else QUERY)
    assert len((await corpus.searcher.search(request)).hits) == 3
    assert index.calls == ["search", "read_hits", "get_records"]  # the last is how this index reads records
    index.calls.clear()
    await corpus.searcher.search(replace(request, texts=False))
    assert index.calls == ["search", "get_records"]
    index.calls.clear()
    await corpus.searcher.rank_documents("apple", mode, 5)
    assert index.calls == ["search"]


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("group_chunks", [None, 2])
async def test_a_hit_whose_record_no_longer_matches_the_filter_makes_way(texts: bool, group_chunks: int | None) -> None:
    index = Overtaking()
    corpus = Corpus(index)
    for place, name in enumerate(["changed", "deleted", "replaced", "kept", "other"]):
        year = 1999 if name == "other" else 2020
        await corpus.put(name, [(at(0.9 - place / 10), "apple")], metadata={"year": year})

    async def overtake() -> None:
        await index.commit_record(replace(make_record("changed"), metadata={"year": 1999}))
        await index.delete_record(DocumentKey("default", "deleted"), 2)
        await corpus.put("replaced", [(at(0.1), "pear")], generation=2, metadata={"year": 2021})

    index.before_reading = overtake
    request = SearchRequest(
        embedding=QUERY,
        top_k=3,
        filter=Range("metadata.year", above=2000),
        texts=texts,
        group_chunks=group_chunks,
    )
    found = await corpus.searcher.search(request)
    hits = found.hits or tuple(hit for group in found.groups for hit in group.hits)
    assert [(hit.chunk.document_id, hit.chunk.generation) for hit in hits] == [("kept", 1), ("replaced", 2)]
    assert [hit.record.metadata["year"] for hit in hits] == [2020, 2021]
    assert [hit.chunk.text for hit in hits] == (["apple", "pear"] if texts else ["", ""])
    assert index.calls.count("search") == 2


async def test_tenants_do_not_meet(corpus: Corpus) -> None:
    await corpus.put("mine", [(QUERY, "apple")])
    await corpus.put("theirs", [(QUERY, "apple")], tenant="other")
    for mode in SearchMode:
        request = SearchRequest("apple", mode, embedding=None if mode is SPARSE else QUERY)
        assert names(await corpus.searcher.search(request)) == ["mine"]
        assert names(await corpus.searcher.search(replace(request, tenant="other"))) == ["theirs"]


async def test_timings_name_the_stages(corpus: Corpus) -> None:
    await corpus.put_many(3)
    timings = (await corpus.searcher.search(SearchRequest("pear"))).timings
    assert timings.total_time_ms >= timings.index_time_ms > 0
    for name in ("encode_time_ms", "dense_time_ms", "sparse_time_ms", "records_time_ms", "fuse_time_ms"):
        assert 0 < getattr(timings, name) < timings.total_time_ms
    assert np.isclose(timings.queue_time_ms + timings.tokenize_time_ms, 0)  # the encoder in this test tells neither
