"""Documents like another, and a document's chunks page by page."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from encoder.errors import IndexUnavailable, InvalidInput, NotFound
from ingest.filters import Equals
from ingest.index.interface import ChunkKey, DocumentKey
from ingest.index.points import segments_of
from services.search.requests import ChunksRequest, SimilarRequest
from services.search.results import SimilarResult
from tests.indexes import make_chunk, make_record
from tests.searching.corpora import DIMENSION, Corpus, at


def towards(*axes: int) -> list[tuple[np.ndarray, str]]:
    rows = np.eye(DIMENSION, dtype=np.float32)
    return [(rows[number], f"axis {number}") for number in axes]


def names(found: SimilarResult) -> list[str]:
    return [document.record.document_id for document in found.documents]


async def test_documents_are_compared_as_wholes(corpus: Corpus) -> None:
    await corpus.put("asked", towards(0, 1, 2))
    await corpus.put("same subjects", towards(2, 0, 1, 1))
    await corpus.put("two of them", towards(0, 1, 5))
    await corpus.put("one of them", towards(0, 5, 6))
    await corpus.put("none", towards(5, 6))
    found = await corpus.searcher.similar_documents(SimilarRequest("asked", 4))
    assert names(found) == ["same subjects", "two of them", "one of them", "none"]
    scores = [document.score for document in found.documents]
    assert scores == pytest.approx([4 / np.sqrt(3 * 6), 2 / 3, 1 / 3, 0])
    assert [document.rank for document in found.documents] == [1, 2, 3, 4]
    best = found.documents[1]
    assert {hit.chunk.chunk_index for hit in best.hits[:2]} == {0, 1}
    assert best.hits[0].score == pytest.approx(1 / np.sqrt(3))
    assert found.timings.total_time_ms > 0


async def test_limits_and_filters_of_similar_documents(corpus: Corpus) -> None:
    await corpus.put("asked", towards(0))
    for number in range(6):
        kind = {"kind": "even" if number % 2 == 0 else "odd"}
        await corpus.put(f"d{number}", [(at(1 - number / 10), "x")] * 5, metadata=kind)
    searcher = corpus.searcher
    assert names(await searcher.similar_documents(SimilarRequest("asked", 2))) == ["d0", "d1"]
    assert names(await searcher.similar_documents(SimilarRequest("asked", min_score=0.75))) == ["d0", "d1", "d2"]
    odd = await searcher.similar_documents(
        SimilarRequest("asked", filter=Equals("metadata.kind", "odd"), group_chunks=2)
    )
    assert names(odd) == ["d1", "d3", "d5"]
    assert [len(document.hits) for document in odd.documents] == [2, 2, 2]


async def test_a_long_document_does_not_find_itself(corpus: Corpus) -> None:
    await corpus.put("asked", [(at(0.99), f"x {place}") for place in range(1500)])
    await corpus.put("other", [(at(0.2), "x")])
    assert names(await corpus.searcher.similar_documents(SimilarRequest("asked"))) == ["other"]


async def test_similar_documents_of_one_tenant_alone(corpus: Corpus) -> None:
    await corpus.put("asked", towards(0))
    await corpus.put("mine", towards(0))
    await corpus.put("theirs", towards(0), tenant="other")
    assert names(await corpus.searcher.similar_documents(SimilarRequest("asked"))) == ["mine"]
    with pytest.raises(NotFound, match="no document 'asked'"):
        await corpus.searcher.similar_documents(SimilarRequest("asked", tenant="other"))


@pytest.mark.parametrize("document_id", ["", "x" * 513])
async def test_an_id_that_is_none(corpus: Corpus, document_id: str) -> None:
    for call in (
        corpus.searcher.similar_documents(SimilarRequest(document_id)),
        corpus.searcher.list_chunks(ChunksRequest(document_id)),
    ):
        with pytest.raises(InvalidInput, match="bytes; 1 to 512") as refusal:
            await call
        assert refusal.value.field == "document_id"


async def test_a_document_that_is_replaced_just_now(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    await corpus.put("asked", towards(0))

    async def gone(keys: Sequence[ChunkKey]) -> dict:
        return {}

    monkeypatch.setattr(corpus.index, "get_embeddings", gone)
    with pytest.raises(IndexUnavailable, match="is being replaced"):
        await corpus.searcher.similar_documents(SimilarRequest("asked"))


async def test_chunks_come_in_pages(corpus: Corpus) -> None:
    await corpus.put("d", [(at(0.5), f"text {place}") for place in range(7)])
    texts, request = [], ChunksRequest("d", chunk_index_first=1, page_size=3)
    while True:
        page = await corpus.searcher.list_chunks(request)
        texts += [chunk.text for chunk in page.chunks]
        if not page.next_page_token:
            break
        request = replace(request, page_token=page.next_page_token)
    assert texts == [f"text {place}" for place in range(1, 7)]
    assert page.record.title == "Title of d"
    assert len((await corpus.searcher.list_chunks(ChunksRequest("d", page_size=5000))).chunks) == 7


async def test_pages_of_a_document_that_grows_and_of_one_that_is_replaced(corpus: Corpus) -> None:
    await corpus.put("d", [(at(0.5), f"text {place}") for place in range(4)])
    request = ChunksRequest("d", page_size=3)
    first = await corpus.searcher.list_chunks(request)
    added = replace(make_chunk("d", 4, "added", generation=2), embedding=at(0.5))
    await corpus.index.upsert_chunks([added])
    grown = replace(make_record("d", generation=2, chunk_count=5), earlier=segments_of([(1, 4)]))
    await corpus.index.commit_record(grown)
    following = replace(request, page_token=first.next_page_token)
    second = await corpus.searcher.list_chunks(following)
    assert [chunk.text for chunk in second.chunks] == ["text 3", "added"]
    await corpus.put("d", [(at(0.5), f"new {place}") for place in range(9)], generation=3)
    with pytest.raises(InvalidInput, match="have been replaced since") as refusal:
        await corpus.searcher.list_chunks(following)
    assert refusal.value.field == "page_token"
    await corpus.index.delete_record(DocumentKey("default", "d"), 4)
    with pytest.raises(NotFound):
        await corpus.searcher.list_chunks(following)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ChunksRequest("d", chunk_index_first=2), "chunk_index_first"),
        (ChunksRequest("d", page_size=-1), "page_size"),
        (ChunksRequest("d", page_token="nonsense"), "page_token"),
    ],
)
async def test_bad_pages_of_chunks(corpus: Corpus, request_: ChunksRequest, field: str) -> None:
    await corpus.put("d", towards(0, 1))
    with pytest.raises(InvalidInput) as refusal:
        await corpus.searcher.list_chunks(request_)
    assert refusal.value.field == field
