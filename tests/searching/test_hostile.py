"""Whatever a message holds, a search answers, or refuses it by name."""

import asyncio
import contextlib

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from mambasearch.v1 import search_pb2

from encoder.errors import InvalidInput, NotFound
from services.search.answer_messages import (
    chunks_to_message,
    retrieve_to_message,
    search_to_message,
    similar_to_message,
)
from services.search.read_mask import mask_of
from services.search.request_messages import (
    chunks_from_message,
    retrieve_from_message,
    search_from_message,
    similar_from_message,
)
from tests.searching.corpora import Corpus, at

NUMBERS = st.one_of(st.floats(width=32), st.sampled_from([0.0, 0.5, 1.0]))
FIELDS = {
    "query": st.one_of(st.sampled_from(["", "pear", "pear apple"]), st.text(max_size=40).filter(str.isprintable)),
    "mode": st.integers(0, 4),
    "top_k": st.sampled_from([0, 1, 5, 200, 201, 2**32 - 1]),
    "tenant": st.sampled_from(["", "default", "other", "no such", "é" * 70]),
    "embedding": st.one_of(st.just([]), st.lists(NUMBERS, min_size=8, max_size=8), st.lists(NUMBERS, max_size=9)),
    "min_score": NUMBERS,
    "page_token": st.one_of(st.just(""), st.text(max_size=20), st.binary(max_size=30).map(bytes.hex)),
    "consistency": st.integers(0, 4),
    "fusion": st.builds(
        search_pb2.Fusion, method=st.integers(0, 3), dense_weight=NUMBERS, rank_constant=st.integers(0, 1001)
    ),
    "diversity": st.builds(search_pb2.Diversity, mmr_lambda=NUMBERS),
}
SEARCH = {"explain": st.booleans(), "group_by_document": st.builds(search_pb2.Grouping, chunks_max=st.integers(0, 11))}
RETRIEVE = {
    "token_budget": st.sampled_from([0, 1, 30, 2**32 - 1]),
    "neighbours": st.integers(0, 6),
    "order": st.integers(0, 3),
}
DOCUMENT = {"document_id": st.sampled_from(["", "d", "e", "x" * 600, "no such"])}


def some_of(fields: dict) -> st.SearchStrategy[dict]:
    return st.lists(st.sampled_from(sorted(fields)), unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )


def without(*names: str) -> dict:
    return {name: made for name, made in FIELDS.items() if name not in names}


async def filled() -> Corpus:
    corpus = Corpus()
    await corpus.put("d", [(at(0.9 - place / 10), "pear " * (place + 1)) for place in range(4)])
    await corpus.put("e", [(at(0.5), "apple")], metadata={"year": 2020})
    return corpus


CORPUS = asyncio.run(filled())


@settings(max_examples=300, deadline=None)
@given(some_of(FIELDS | SEARCH))
def test_searches(fields: dict) -> None:
    with contextlib.suppress(InvalidInput):
        request = search_from_message(search_pb2.SearchRequest(**fields))
        found = asyncio.run(CORPUS.searcher.search(request))
        search_to_message(found, mask_of([], search_pb2.SearchResponse.DESCRIPTOR))
        assert len(found.hits) + sum(len(group.hits) for group in found.groups) <= 5


@settings(max_examples=300, deadline=None)
@given(some_of(without("page_token") | RETRIEVE))
def test_retrievals(fields: dict) -> None:
    with contextlib.suppress(InvalidInput):
        request = retrieve_from_message(search_pb2.RetrieveRequest(**fields))
        found = asyncio.run(CORPUS.searcher.retrieve(request))
        assert retrieve_to_message(found, None).context_tokens <= request.token_budget


@settings(max_examples=150, deadline=None)
@given(
    some_of(DOCUMENT | {name: FIELDS[name] for name in ("top_k", "tenant", "min_score", "consistency")}),
    some_of(DOCUMENT | {"page_size": st.integers(-5, 500), "chunk_index_first": st.integers(0, 6)}),
)
def test_documents(similar: dict, chunks: dict) -> None:
    with contextlib.suppress(InvalidInput, NotFound):
        asked = similar_from_message(search_pb2.SimilarDocumentsRequest(**similar))
        similar_to_message(asyncio.run(CORPUS.searcher.similar_documents(asked)), None)
    with contextlib.suppress(InvalidInput, NotFound):
        wanted = chunks_from_message(search_pb2.ListChunksRequest(**chunks))
        chunks_to_message(asyncio.run(CORPUS.searcher.list_chunks(wanted)), None)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_bytes(data: bytes) -> None:
    with contextlib.suppress(InvalidInput, DecodeError):
        request = search_from_message(search_pb2.SearchRequest.FromString(data))
        asyncio.run(CORPUS.searcher.search(request))
