"""Hits into passages: what is taken, what is joined, what is left out."""

from datetime import UTC, datetime

from ingest.documents import DEFAULT_TENANT
from ingest.index.interface import DocumentRecord, StoredChunk
from services.passages import join, select, single_gaps
from services.results import Hit


def make_chunk(name: str, index: int, text: str, char_start: int = 0) -> StoredChunk:
    char_end = char_start + len(text)
    return StoredChunk(DEFAULT_TENANT, name, 1, index, char_start, char_end, 1, 1, (), len(text.split()), text)


def make_hits(*chunks: StoredChunk) -> list[Hit]:
    """The chunks as hits, best first."""
    return [
        Hit(rank, 1 / rank, chunk, make_record(chunk.document_id), None, None)
        for rank, chunk in enumerate(chunks, start=1)
    ]


def make_record(name: str) -> DocumentRecord:
    return DocumentRecord(DEFAULT_TENANT, name, "", "", {}, 1, 9, 99, 999, "hash", "hash", datetime.now(UTC))


def count(text: str) -> int:
    return len(text.split())


def test_what_does_not_fit_is_passed_over() -> None:
    hits = make_hits(make_chunk("a", 0, "one two three"), make_chunk("b", 0, "one two"), make_chunk("c", 0, "three"))
    assert [hit.chunk.document_id for hit in select(hits, 4)] == ["a", "c"]
    assert select(hits, 0) == []
    assert select(hits, 2) == []  # not the second best alone


def test_a_text_is_taken_once() -> None:
    hits = make_hits(make_chunk("a", 0, "all rights reserved"), make_chunk("b", 5, "all rights reserved"))
    assert [hit.chunk.document_id for hit in select(hits, 100)] == ["a"]


def test_neighbours_are_joined_as_far_apart_as_they_stand() -> None:
    texts = ["alpha", "beta", "gamma", "delta"]
    starts = [0, 6, 12, 17]  # one character between the first two, two after the second, none after the third
    chunks = [make_chunk("a", index, *pair) for index, pair in enumerate(zip(texts, starts, strict=True))]
    (passage,) = join(make_hits(*reversed(chunks)), [], 100, count)
    assert passage.text == "alpha\nbeta\n\ngammadelta"
    assert (passage.char_start, passage.char_end) == (0, 22)
    assert passage.score == 1


def test_passages_come_in_the_order_of_their_best_hit() -> None:
    hits = make_hits(
        make_chunk("b", 7, "best"),
        make_chunk("a", 0, "second"),
        make_chunk("b", 3, "third"),
        make_chunk("b", 8, "end"),
    )
    passages = join(hits, [], 100, count)
    assert [(passage.record.document_id, passage.chunks[0].chunk_index) for passage in passages] == [
        ("b", 7),
        ("a", 0),
        ("b", 3),
    ]
    assert passages[0].text.split() == ["best", "end"]


def test_gaps_of_one_chunk_are_found_and_filled() -> None:
    hits = make_hits(make_chunk("a", 2, "two"), make_chunk("a", 0, "zero"), make_chunk("a", 5, "five"))
    assert [(hit.chunk.chunk_index, missing) for hit, missing in single_gaps(hits)] == [(0, 1)]
    passages = join(hits, [make_chunk("a", 1, "one")], 100, count)
    assert [passage.text.split() for passage in passages] == [["zero", "one", "two"], ["five"]]


def test_the_joined_count_decides() -> None:
    def count_dearly(text: str) -> int:
        return count(text) + (3 if "zero" in text and "one" in text else 0)

    hits = make_hits(make_chunk("a", 0, "zero"), make_chunk("a", 2, "two"))
    filler = make_chunk("a", 1, "one")
    assert [len(passage.chunks) for passage in join(hits, [filler], 6, count_dearly)] == [3]
    assert [len(passage.chunks) for passage in join(hits, [filler], 5, count_dearly)] == [1, 1]
    assert [passage.text for passage in join(hits, [filler], 1, count_dearly)] == ["zero"]
    assert join([], [], 5, count) == []
