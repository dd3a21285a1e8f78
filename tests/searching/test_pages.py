"""Pages of hits: the same as one long answer while nothing changes, and none twice or skipped while much does."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from encoder.errors import InvalidInput
from ingest.index.interface import DocumentKey
from services.search.pages import HITS_MAX, page_of
from services.search.requests import SearchRequest
from services.search.results import SearchMode, SearchResult
from tests.searching.corpora import QUERY, Corpus, at

HYBRID = SearchRequest("pear", SearchMode.HYBRID, 7, embedding=QUERY)
DENSE = SearchRequest(embedding=QUERY, top_k=7)
SPARSE = SearchRequest("pear", SearchMode.SPARSE, 7)


async def pages(corpus: Corpus, request: SearchRequest) -> AsyncIterator[SearchResult]:
    while True:
        found = await corpus.searcher.search(request)
        yield found
        if not found.next_page_token:
            return
        request = replace(request, page_token=found.next_page_token)


@pytest.mark.parametrize("request_", [HYBRID, DENSE, SPARSE, replace(HYBRID, mmr_lambda=0.5)])
async def test_pages_are_one_answer_cut(corpus: Corpus, request_: SearchRequest) -> None:
    await corpus.put_many(60)
    whole = await corpus.searcher.search(replace(request_, top_k=200))
    assert whole.next_page_token == ""
    hits = [hit async for page in pages(corpus, request_) for hit in page.hits]
    assert [hit.rank for hit in hits] == list(range(1, len(whole.hits) + 1))
    assert [hit.chunk for hit in hits] == [hit.chunk for hit in whole.hits]


async def test_pages_of_groups(corpus: Corpus) -> None:
    for number in range(20):
        await corpus.put(f"d{number:02}", [(at(1 - number / 100 - place / 30), "apple") for place in range(4)])
    request = SearchRequest(embedding=QUERY, top_k=6, group_chunks=2)
    groups = [group async for page in pages(corpus, request) for group in page.groups]
    assert [group.record.document_id for group in groups] == [f"d{number:02}" for number in range(20)]
    assert [group.rank for group in groups] == list(range(1, 21))
    assert all(len(group.hits) == 2 for group in groups)


@pytest.mark.parametrize("request_", [HYBRID, DENSE, SPARSE, replace(DENSE, mmr_lambda=0.6)])
async def test_nothing_twice_and_nothing_skipped_while_documents_come_and_go(
    corpus: Corpus, request_: SearchRequest
) -> None:
    """Between pages documents are added on top, deleted and replaced; scores, ranks and weights move."""
    chance = random.Random(7)
    await corpus.put_many(80)
    changed: set[str] = set()
    shown: list[tuple[str, int]] = []
    number = 0
    async for page in pages(corpus, request_):
        shown += [(hit.record.document_id, hit.chunk.generation) for hit in page.hits]
        for _ in range(3):
            number += 1
            await corpus.put(f"new{number}", [(at(1 - number / 10_000), "pear pear apple")])
            gone, replaced = (f"d{chance.randrange(80):03}" for _ in range(2))
            await corpus.index.delete_record(DocumentKey("default", gone), 1000)
            if replaced not in changed:
                await corpus.put(replaced, [(at(0.999), "pear anew")], generation=2)
            changed |= {gone, replaced}
        assert number < 300
    assert len(shown) == len(set(shown))
    unchanged = {f"d{place:03}" for place in range(80)} - changed
    if request_ is SPARSE:
        unchanged = {name for name in unchanged if int(name[1:]) % 7}
    assert len(unchanged) > 5
    assert unchanged <= {name for name, _ in shown}


async def test_pages_end_at_their_depth_and_say_so(corpus: Corpus) -> None:
    await corpus.put("long", [(at(1 - place / 2000), "apple") for place in range(1100)])
    sizes, last = [], None
    async for page in pages(corpus, replace(DENSE, top_k=200, texts=False)):
        sizes.append(len(page.hits))
        last = page
        assert page.depth_reached == (page.next_page_token == "")
    assert sizes == [200] * 5
    assert last
    assert last.hits[-1].rank == HITS_MAX
    diverse = [len(page.hits) async for page in pages(corpus, replace(DENSE, top_k=150, mmr_lambda=0.9))]
    assert sum(diverse) == 400
    groups = [page async for page in pages(corpus, replace(DENSE, group_chunks=1))]
    assert [len(page.groups) for page in groups] == [1, 0]
    assert groups[-1].depth_reached


@pytest.mark.parametrize(
    "other",
    [
        replace(HYBRID, query="apple"),
        replace(HYBRID, mode=SearchMode.DENSE),
        replace(HYBRID, tenant="other"),
        replace(HYBRID, embedding=at(0.5)),
        replace(HYBRID, min_score=0.1),
        replace(HYBRID, group_chunks=2),
        replace(HYBRID, mmr_lambda=0.5),
    ],
)
async def test_a_token_of_another_search_is_refused(corpus: Corpus, other: SearchRequest) -> None:
    await corpus.put_many(20)
    token = (await corpus.searcher.search(HYBRID)).next_page_token
    with pytest.raises(InvalidInput, match="begin with the first page") as refusal:
        await corpus.searcher.search(replace(other, page_token=token))
    assert refusal.value.field == "page_token"


async def test_what_may_differ_from_page_to_page(corpus: Corpus) -> None:
    await corpus.put_many(20)
    token = (await corpus.searcher.search(replace(HYBRID, mode=None))).next_page_token
    for other in (replace(HYBRID, top_k=3), replace(HYBRID, explain=True), replace(HYBRID, texts=False)):
        assert (await corpus.searcher.search(replace(other, page_token=token))).hits[0].rank == 8


@pytest.mark.parametrize("token", ["x", "####", "AAAA", "é", "A" * 20_000, "A" * 40, ""])
async def test_broken_tokens(corpus: Corpus, token: str) -> None:
    await corpus.put_many(20)
    good = (await corpus.searcher.search(DENSE)).next_page_token
    for broken in [token] if token else [good[:-4], good + good, good.swapcase()]:
        with pytest.raises(InvalidInput) as refusal:
            await corpus.searcher.search(replace(DENSE, page_token=broken))
        assert refusal.value.field == "page_token"


async def test_a_token_of_another_models_index_is_refused(corpus: Corpus) -> None:
    await corpus.put_many(20)
    token = (await corpus.searcher.search(DENSE)).next_page_token
    page_of(replace(DENSE, page_token=token), "f")
    with pytest.raises(InvalidInput):
        page_of(replace(DENSE, page_token=token), "g")
