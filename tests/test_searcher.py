"""Searching the embedded engine: modes, limits, generations, passages."""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from encoder.errors import EncoderUnavailable, InvalidInput
from encoder.interface import Encoded
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import BATCH_CHUNKS_MAX, LIMIT_MAX, ChunkKey, IndexAnswer, Scope, SparseVector
from ingest.index.points import segments_of
from services.search.fusion import Features, FusionWeights
from services.search.requests import RetrieveRequest, SearchRequest
from services.search.results import SearchMode
from services.search.searcher import Searcher
from tests.fakes import FakeEncoder
from tests.indexes import make_chunk, make_record
from tests.indexing import commit, make_chunker, put, write_chunks

TOKENIZER = Tokenizer.load(DEFAULT_MODEL_FOLDER)
CHUNKER = make_chunker()
LIGHTHOUSE = Document(
    "lighthouse",
    "The keeper climbed the lighthouse every evening.\n\nHe lit the lamp before the first ships came in. "
    "Fishermen trusted its beam more than any chart, and said so in the tavern below the cliff.\n\n"
    "One winter the oil ran out. The keeper burned his furniture, chair by chair, until the relief boat arrived.",
    title="The keeper of Skerry Rock",
    source="tales/skerry.txt",
)
ORCHARD = Document(
    "orchard",
    "Apples want cold winters. An orchard that never freezes gives little fruit.\n\nPrune in February, "
    "before the sap rises, and never in the rain.",
    title="Orchard notes",
)


class Recording(EmbeddedIndex):
    """Counts searches."""

    searches = 0

    async def search(self, *arguments: Any, **options: Any) -> IndexAnswer:
        self.searches += 1
        return await super().search(*arguments, **options)


@dataclass
class Setting:
    encoder: FakeEncoder
    index: Recording
    searcher: Searcher


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    encoder = FakeEncoder()
    index = await Recording.open(tmp_path, dimension=384, fingerprint="f", write_bytes_min=0)
    yield Setting(encoder, index, Searcher(encoder, index, TOKENIZER))
    await index.close()


@pytest.fixture
async def filled(setting: Setting) -> Setting:
    for document in (LIGHTHOUSE, ORCHARD):
        await put(setting.index, setting.encoder, CHUNKER, document)
    return setting


@pytest.mark.parametrize("mode", SearchMode)
async def test_each_mode_finds_the_chunk(filled: Setting, mode: SearchMode) -> None:
    found = await filled.searcher.search(SearchRequest("the keeper burned his furniture", mode, 3))
    best = found.hits[0]
    assert best.rank == 1
    assert best.chunk.document_id == "lighthouse"
    assert "furniture" in best.chunk.text
    assert best.chunk.text == LIGHTHOUSE.text[best.chunk.char_start : best.chunk.char_end]
    assert (best.record.title, best.record.source) == (LIGHTHOUSE.title, LIGHTHOUSE.source)
    assert [hit.rank for hit in found.hits] == list(range(1, len(found.hits) + 1))
    assert all(before.score >= after.score for before, after in pairwise(found.hits))
    assert (best.dense_score is None) == (mode is SearchMode.SPARSE)
    assert (best.sparse_score is None) == (mode is SearchMode.DENSE)
    assert (found.query_tokens == 0) == (mode is SearchMode.SPARSE)
    assert found.timings.total_time_ms >= found.timings.index_time_ms > 0


async def test_a_models_own_weights_add_scores_up(filled: Setting) -> None:
    weights = FusionWeights(intercept=-3, best_sparse=-0.5, dense_gap=-1)
    searcher = Searcher(filled.encoder, filled.index, TOKENIZER, weights)
    hits = (await searcher.search(SearchRequest("burned his furniture", SearchMode.HYBRID, 10))).hits
    cosines = [hit.dense_score for hit in hits if hit.dense_score is not None]
    found_by_words = [hit.sparse_score for hit in hits if hit.sparse_score is not None]
    assert len(hits) == len(cosines) > len(found_by_words) > 0
    weight = weights.weight(Features(math.log(max(found_by_words)), max(cosines) - min(cosines)))
    for hit in hits:
        assert hit.score == pytest.approx((hit.dense_score or 0) + weight * (hit.sparse_score or 0))
    ranks = (await filled.searcher.search(SearchRequest("burned his furniture", SearchMode.HYBRID, 10))).hits
    assert ranks[0].score == pytest.approx(2 / 61)
    assert {hit.chunk.chunk_key for hit in ranks} == {hit.chunk.chunk_key for hit in hits}


async def test_words_need_no_encoder(filled: Setting) -> None:
    class Away(FakeEncoder):
        async def encode_queries(self, queries: Sequence[str]) -> Encoded:
            raise EncoderUnavailable("away")

    searcher = Searcher(Away(), filled.index, TOKENIZER)
    found = await searcher.search(SearchRequest("furniture", SearchMode.SPARSE, 3))
    assert [hit.chunk.document_id for hit in found.hits] == ["lighthouse"]
    for mode in (SearchMode.DENSE, SearchMode.HYBRID):
        with pytest.raises(EncoderUnavailable):
            await searcher.search(SearchRequest("furniture", mode, 3))


async def test_one_half_alone_is_asked_in_one_call(filled: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        SearchRequest("burned his furniture", mode, 2, min_score=least)
        for mode, least in ((SearchMode.DENSE, None), (SearchMode.SPARSE, None), (SearchMode.DENSE, -1.0))
    ]
    expected = [(await filled.searcher.search(request)).hits for request in asked]
    monkeypatch.setattr(filled.index, "read_hits", None)
    assert [(await filled.searcher.search(request)).hits for request in asked] == expected
    assert all(len(hits) >= 1 and hits[0].chunk.text for hits in expected)


async def test_a_query_of_stop_words_has_dense_hits_only(filled: Setting) -> None:
    assert (await filled.searcher.search(SearchRequest("the and of", SearchMode.SPARSE, 3))).hits == ()
    hybrid = await filled.searcher.search(SearchRequest("the and of", SearchMode.HYBRID, 3))
    assert len(hybrid.hits) == 3
    assert all(hit.sparse_score is None for hit in hybrid.hits)


@pytest.mark.parametrize(
    ("query", "top_k", "field", "words"),
    [
        ("", 5, "query", "empty"),
        (" \n\t", 5, "query", "empty"),
        ("word " * 600, 5, "query", "601 tokens; the limit is 512"),
        ("a" * 9000, 5, "query", "9000 characters; the limit is 8192"),
        ("apples", 0, "top_k", "top_k is 0; 1 to 200"),
        ("apples", -1, "top_k", "top_k is -1"),
        ("apples", 201, "top_k", "top_k is 201"),
    ],
)
@pytest.mark.parametrize("mode", SearchMode)
async def test_bad_input(filled: Setting, mode: SearchMode, query: str, top_k: int, field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refusal:
        await filled.searcher.search(SearchRequest(query, mode, top_k))
    assert refusal.value.field == field


async def test_an_encoder_with_a_lower_limit_is_understood(filled: Setting) -> None:
    searcher = Searcher(FakeEncoder(query_tokens_max=4), filled.index, TOKENIZER)
    with pytest.raises(InvalidInput, match="query has 5 tokens; the limit is 4") as refusal:
        await searcher.search(SearchRequest("one two three four", SearchMode.DENSE, 3))
    assert refusal.value.field == "query"


async def test_equal_scores_have_an_order(setting: Setting) -> None:
    for name in ("c", "a", "b"):
        await put(setting.index, setting.encoder, CHUNKER, Document(name, "the very same words"))
    for mode in SearchMode:
        found = await setting.searcher.search(SearchRequest("same words", mode, 3))
        assert [hit.chunk.document_id for hit in found.hits] == ["a", "b", "c"], mode


async def test_only_committed_generations_are_seen(setting: Setting) -> None:
    old, new = Document("d", "apples and pears"), Document("d", "apples and quinces")
    chunks = await write_chunks(setting.index, setting.encoder, CHUNKER, old, 1)
    assert (await setting.searcher.search(SearchRequest("apples", SearchMode.HYBRID, 5))).hits == ()
    await commit(setting.index, old, chunks, 1)
    later = await write_chunks(setting.index, setting.encoder, CHUNKER, new, 2)
    for expected, record in ((old, None), (new, 2)):
        if record:
            await commit(setting.index, new, later, record)
        for mode in SearchMode:
            found = await setting.searcher.search(SearchRequest("apples", mode, 5))
            assert [hit.chunk.text for hit in found.hits] == [expected.text]


async def test_a_document_committed_during_the_search_is_asked_for_again(setting: Setting) -> None:
    old, new = Document("d", "apples and pears"), Document("d", "apples and quinces")
    await put(setting.index, setting.encoder, CHUNKER, old, 1)
    read = setting.index.read_hits

    async def commit_then_read(chunks: Sequence[ChunkKey], **options: object) -> tuple:
        setting.index.read_hits = read  # type: ignore[method-assign]
        await put(setting.index, setting.encoder, CHUNKER, new, 2)
        return await read(chunks, **options)

    setting.index.read_hits = commit_then_read  # type: ignore[method-assign,assignment]
    found = await setting.searcher.search(SearchRequest("apples", SearchMode.HYBRID, 5))
    assert [hit.chunk.text for hit in found.hits] == [new.text]


async def test_old_generations_do_not_crowd_out_the_committed(setting: Setting) -> None:
    # 150 documents whose old chunks match better than anything committed: more than the first request asks for.
    for number in range(150):
        stale, fresh = Document(f"d{number}", "plums"), Document(f"d{number}", f"plums with sugar {number}")
        await write_chunks(setting.index, setting.encoder, CHUNKER, stale, 1)
        await put(setting.index, setting.encoder, CHUNKER, fresh, 2)
    for mode in (SearchMode.DENSE, SearchMode.SPARSE):
        setting.index.searches = 0
        found = await setting.searcher.search(SearchRequest("plums", mode, 20))
        assert len(found.hits) == 20
        assert all(hit.chunk.generation == 2 for hit in found.hits)
        assert setting.index.searches <= 3


async def test_a_huge_version_under_way_crowds_out_nothing(setting: Setting) -> None:
    """More chunks that match, and match better, than any search asks for: none of them is committed."""
    await put(setting.index, setting.encoder, CHUNKER, Document("small", "plums with sugar and cinnamon"))
    embedding = (await setting.encoder.encode_passages(["plums"])).embeddings[0]
    huge = [
        replace(make_chunk("huge", number, "plums plums"), embedding=embedding) for number in range(LIMIT_MAX + 200)
    ]
    for start in range(0, len(huge), BATCH_CHUNKS_MAX):
        await setting.index.upsert_chunks(huge[start : start + BATCH_CHUNKS_MAX])
    for mode in SearchMode:
        found = await setting.searcher.search(SearchRequest("plums", mode, 20))
        assert [hit.chunk.document_id for hit in found.hits] == ["small"], mode


async def test_a_version_that_is_committed_between_two_rounds_is_found(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first round its generation is not committed, in the second the one before is no more."""
    embedding = (await setting.encoder.encode_passages(["plums"])).embeddings[0]
    for number, (name, words, count) in enumerate([("first", "plums " * 3, 250), ("second", "plums " * 2, 600)]):
        chunks = [make_chunk(name, place, words, generation=number + 1) for place in range(count)]
        under_way = [replace(chunk, embedding=embedding) for chunk in chunks]
        for start in range(0, count, BATCH_CHUNKS_MAX):
            await setting.index.upsert_chunks(under_way[start : start + BATCH_CHUNKS_MAX])
    for generation in (1, 2):
        chunk = replace(make_chunk("replaced", 0, "plums " * 4, generation=generation), embedding=embedding)
        await setting.index.upsert_chunks([chunk])
    await setting.index.commit_record(make_record("replaced", generation=1, chunk_count=1))
    search, scopes = setting.index.search, list[Scope]()

    async def search_and_commit(
        embedding: None, sparse: SparseVector, limit: int, scope: Scope, **options: Any
    ) -> IndexAnswer:
        if scopes and scope.generations is None:
            await setting.index.commit_record(make_record("replaced", generation=2, chunk_count=1))
        scopes.append(scope)
        return await search(embedding, sparse, limit, scope, **options)

    monkeypatch.setattr(setting.index, "search", search_and_commit)
    found = await setting.searcher.search(SearchRequest("plums", SearchMode.SPARSE, 60))
    assert [(hit.chunk.document_id, hit.chunk.generation) for hit in found.hits] == [("replaced", 2)]
    assert sum(scope.generations is None for scope in scopes) == 3


async def test_a_gap_is_read_from_the_segment_that_it_is_in(setting: Setting) -> None:
    texts = ["apples and pears", "in the midst of it", "plums and quinces", "at the end"]
    for generation, text in enumerate(texts, start=1):
        chunk = make_chunk("d", generation - 1, text, generation=generation)
        embedding = (await setting.encoder.encode_passages([text])).embeddings[0]
        await setting.index.upsert_chunks([replace(chunk, embedding=embedding)])
    record = replace(make_record("d", generation=4, chunk_count=4), earlier=segments_of([(1, 1), (2, 1), (3, 1)]))
    await setting.index.commit_record(record)
    found = await setting.searcher.retrieve(
        RetrieveRequest(SearchRequest("apples quinces", SearchMode.SPARSE, 10), 1000)
    )
    assert [chunk.generation for chunk in found.passages[0].chunks] == [1, 2, 3]


async def test_passages_join_neighbours_and_keep_to_the_budget(filled: Setting) -> None:
    chunks = CHUNKER.chunk(LIGHTHOUSE)
    assert len(chunks) >= 3
    total = sum(chunk.token_count for chunk in chunks)
    query = "keeper lighthouse lamp ships oil furniture boat fishermen"
    whole = await filled.searcher.retrieve(RetrieveRequest(SearchRequest(query, SearchMode.HYBRID, 50), 1000))
    lighthouse = next(passage for passage in whole.passages if passage.record.document_id == "lighthouse")
    assert (lighthouse.char_start, lighthouse.char_end) == (0, len(LIGHTHOUSE.text))
    assert lighthouse.text.split() == LIGHTHOUSE.text.split()
    assert lighthouse.token_count == TOKENIZER.count(lighthouse.text) == total
    for budget in range(1, total + 60, 7):
        some = await filled.searcher.retrieve(RetrieveRequest(SearchRequest(query, SearchMode.HYBRID, 50), budget))
        assert sum(TOKENIZER.count(passage.text) for passage in some.passages) <= budget
        for passage in some.passages:
            text = {"lighthouse": LIGHTHOUSE, "orchard": ORCHARD}[passage.record.document_id].text
            assert passage.text.split() == text[passage.char_start : passage.char_end].split()
        assert all(before.score >= after.score for before, after in pairwise(some.passages))


async def test_a_gap_between_two_hits_is_read(filled: Setting) -> None:
    first, middle, last = (chunk.text for chunk in CHUNKER.chunk(LIGHTHOUSE)[:3])
    query = "climbed evening furniture relief boat"
    hits = {hit.chunk.text for hit in (await filled.searcher.search(SearchRequest(query, SearchMode.SPARSE, 50))).hits}
    assert {first, last} <= hits
    assert middle not in hits
    found = await filled.searcher.retrieve(RetrieveRequest(SearchRequest(query, SearchMode.SPARSE, 50), 1000))
    assert [chunk.text for chunk in found.passages[0].chunks][:3] == [first, middle, last]


@pytest.mark.parametrize("budget", [0, 131_073])
async def test_a_budget_out_of_range(filled: Setting, budget: int) -> None:
    with pytest.raises(InvalidInput, match=f"token_budget is {budget}; 1 to 131072") as refusal:
        await filled.searcher.retrieve(RetrieveRequest(SearchRequest("apples", SearchMode.HYBRID, 5), budget))
    assert refusal.value.field == "token_budget"


async def test_nothing_fits_and_nothing_is_found(filled: Setting) -> None:
    assert (
        await filled.searcher.retrieve(RetrieveRequest(SearchRequest("apples", SearchMode.HYBRID, 5), 1))
    ).passages == ()
    assert (
        await filled.searcher.retrieve(RetrieveRequest(SearchRequest("zeppelin", SearchMode.SPARSE, 5), 100))
    ).passages == ()
