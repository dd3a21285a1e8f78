"""Masks of answers, and fields of requests that nobody knows."""

import pytest
from mambasearch.v1 import filter_pb2, search_pb2

from encoder.errors import InvalidInput
from services.search.read_mask import mask_of, wants
from services.search.unknown_fields import refuse_unknown_fields

ANSWER = search_pb2.SearchResponse.DESCRIPTOR


def test_a_mask_is_a_tree() -> None:
    assert mask_of([], ANSWER) is None
    assert mask_of(["*"], ANSWER) is None
    mask = mask_of(["hits.text", "hits.explanation.summary", "timings", "groups.hits", "groups.hits.text"], ANSWER)
    assert mask == {
        "hits": {"text": None, "explanation": {"summary": None}},
        "timings": None,
        "groups": {"hits": None},
    }
    assert mask_of(["groups.hits.text", "groups.hits"], ANSWER) == {"groups": {"hits": None}}
    assert wants(mask, "hits", "text")
    assert wants(mask, "timings", "total_time_ms")
    assert wants(mask, "hits")
    assert not wants(mask, "hits", "score")
    assert not wants(mask, "query_tokens")
    assert wants(None, "anything")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("hit", "SearchResponse has hits, query_tokens"),
        ("hits.words", "Hit has rank, score"),
        ("hits.text.first", "ends before that"),
        ("hits.metadata.year", "ends before that"),
        ("hits.", "Hit has"),
        ("", "SearchResponse has"),
        ("hits.*", "Hit has"),
        ("x" * 500, "names 'xxx"),
    ],
)
def test_an_unknown_path_is_refused(path: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refusal:
        mask_of(["timings", path], ANSWER)
    assert refusal.value.field == "read_mask"
    assert len(str(refusal.value)) < 500


def test_a_mask_of_too_many_paths_is_refused() -> None:
    with pytest.raises(InvalidInput, match="65 paths; the limit is 64"):
        mask_of(["hits"] * 65, ANSWER)


UNKNOWN = b"\xfa\x07\x01x"  # field 127, one byte long


def test_unknown_fields_are_refused_wherever_they_stand() -> None:
    condition = filter_pb2.Filter(exists="title")
    request = search_pb2.SearchRequest(
        query="a",
        filter=filter_pb2.Filter(all_of=filter_pb2.Filters(filters=[condition, condition])),
        diversity=search_pb2.Diversity(),
        embedding=[1.0],
    )
    refuse_unknown_fields(request)
    data = request.SerializeToString()
    top = search_pb2.SearchRequest.FromString(data + UNKNOWN)
    with pytest.raises(InvalidInput, match="SearchRequest has an unknown field of number 127") as refusal:
        refuse_unknown_fields(top)
    assert refusal.value.field == "SearchRequest"
    deep = search_pb2.SearchRequest.FromString(data)
    deep.filter.all_of.filters[1].MergeFromString(UNKNOWN)
    with pytest.raises(InvalidInput) as refusal:
        refuse_unknown_fields(deep)
    assert refusal.value.field == "filter.all_of.filters[1]"
    refuse_unknown_fields(deep, inside=False)
