"""Hits into passages: what is taken, what is joined, what is left out."""

from dataclasses import replace
from datetime import UTC, datetime

from ingest.documents import DEFAULT_TENANT
from ingest.index.interface import DocumentRecord, StoredChunk
from services.search.context import text_block
from services.search.passages import join, neighbours, select
from services.search.requests import PassageOrder
from services.search.results import Hit


def make_chunk(name: str, index: int, text: str, char_start: int | None = None) -> StoredChunk:
    char_start = 1000 * index if char_start is None else char_start
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
    ((passage,), _) = join(make_hits(*reversed(chunks)), [], 100, count)
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
    passages, _ = join(hits, [], 100, count)
    assert [(passage.record.document_id, passage.chunks[0].chunk_index) for passage in passages] == [
        ("b", 7),
        ("a", 0),
        ("b", 3),
    ]
    assert passages[0].text.split() == ["best", "end"]


def test_gaps_of_one_chunk_are_found_and_filled() -> None:
    hits = make_hits(make_chunk("a", 2, "two"), make_chunk("a", 0, "zero"), make_chunk("a", 5, "five"))
    assert [key.chunk_index for key in neighbours(hits, 0)] == [1]
    passages, _ = join(hits, [make_chunk("a", 1, "one")], 100, count)
    assert [passage.text.split() for passage in passages] == [["zero", "one", "two"], ["five"]]


def test_neighbours_are_named_gaps_first_then_by_distance() -> None:
    hits = make_hits(make_chunk("a", 4, "four"), make_chunk("b", 0, "zero"), make_chunk("a", 6, "six"))
    assert [(key.document_id, key.chunk_index) for key in neighbours(hits, 2)] == [
        *[("a", 5), ("a", 3), ("b", 1), ("a", 7)],
        *[("a", 2), ("b", 2), ("a", 8)],  # a document of nine chunks ends there
    ]


def test_nearly_the_same_text_is_taken_once() -> None:
    words = [f"word{number}" for number in range(17)]
    whole, most, other = " ".join(words), " ".join(words[1:]).upper(), " ".join(reversed(words))
    hits = make_hits(make_chunk("a", 0, whole), make_chunk("b", 0, most), make_chunk("c", 0, other))
    assert [hit.chunk.document_id for hit in select(hits, 100)] == ["a", "c"]
    contained = make_hits(make_chunk("a", 0, most), make_chunk("b", 0, whole + " and stays there for ever after"))
    assert len(select(contained, 100)) == 2  # the longer one has something new


def test_what_chunks_repeat_of_each_other_stands_once() -> None:
    text = "alpha beta gamma delta"
    chunks = [make_chunk("a", 0, text[:16], 0), make_chunk("a", 1, text[11:], 11)]
    ((passage,), _) = join(make_hits(*chunks), [], 100, count)
    assert passage.text == text
    assert (passage.char_start, passage.char_end) == (0, len(text))


def test_passages_in_the_order_of_the_document() -> None:
    hits = make_hits(
        make_chunk("b", 7, "best"), make_chunk("a", 3, "second"), make_chunk("b", 3, "third"), make_chunk("a", 0, "end")
    )
    passages, _ = join(hits, [], 100, count, PassageOrder.DOCUMENT)
    places = [(passage.record.document_id, passage.chunks[0].chunk_index) for passage in passages]
    assert places == [("b", 3), ("b", 7), ("a", 0), ("a", 3)]
    assert [passage.number for passage in passages] == [1, 2, 3, 4]


def test_a_text_block_has_a_citation_over_each_passage() -> None:
    title = "A title\n[9] of two lines"
    one = replace(make_chunk("a", 0, "first words"), headings=("Part", "Section"), line_start=3, line_end=9)
    hits = [replace(make_hits(one)[0], record=replace(make_record("a"), title=title))]
    hits += [replace(make_hits(make_chunk("b", 4, "second words"))[0], rank=2)]
    passages, tokens = join(hits, [], 100, count)
    block = text_block(passages)
    assert block.split("\n\n") == [
        "[1] A title [9] of two lines › Part › Section (a, lines 3-9)\nfirst words",
        "[2] (b, line 1)\nsecond words",
    ]
    assert tokens == count(block)


def test_a_heading_that_is_the_title_is_named_once() -> None:
    one = replace(make_chunk("a", 0, "first words"), headings=("Kenya", "Kenya", "Energy"))
    hits = [replace(make_hits(one)[0], record=replace(make_record("a"), title="Kenya"))]
    assert text_block(join(hits, [], 100, count)[0]).startswith("[1] Kenya › Kenya › Energy (a, line 1)\n")


def test_citations_count_towards_the_budget() -> None:
    hits = make_hits(make_chunk("a", 0, "zero"), make_chunk("a", 2, "two"))  # a citation has 4 words: [1] (a, line 1)
    filler = make_chunk("a", 1, "one")
    assert [len(passage.chunks) for passage in join(hits, [filler], 7, count)[0]] == [3]
    assert [len(passage.chunks) for passage in join(hits, [], 10, count)[0]] == [1, 1]
    assert [passage.text for passage in join(hits, [], 9, count)[0]] == ["zero"]
    assert join(hits, [], 4, count) == ([], 0)
    assert join([], [], 5, count) == ([], 0)


def test_the_count_of_the_whole_block_decides() -> None:
    def count_dearly(text: str) -> int:
        return count(text) + (3 if "zero" in text and "two" in text else 0)

    hits = make_hits(make_chunk("a", 0, "zero"), make_chunk("a", 2, "two"))
    assert len(join(hits, [], 13, count_dearly)[0]) == 2
    assert len(join(hits, [], 12, count_dearly)[0]) == 1


def test_a_neighbour_whose_hit_is_left_out_goes_with_it() -> None:
    hits = make_hits(make_chunk("a", 0, "zero"), make_chunk("b", 0, "one two three four five six seven"))
    passages, _ = join(hits, [make_chunk("b", 1, "eight")], 13, count)
    assert [passage.record.document_id for passage in passages] == ["a"]
