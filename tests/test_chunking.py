"""Chunks: where they are cut, and what they may never do to a text."""

import functools
import math
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.passage_text import TITLE_TOKENS_MAX
from encoder.tokenizer import Tokenizer
from ingest.chunking import UNREAD_CHARS_MAX, Chunk, Chunker
from ingest.documents import Document


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(DEFAULT_MODEL_FOLDER)


def chunker(tokens_max: int = 16, overlap_tokens: int = 0) -> Chunker:
    return Chunker(tokenizer(), tokens_max, overlap_tokens)


def cut(text: str, tokens_max: int = 16, overlap_tokens: int = 0) -> list[Chunk]:
    return chunker(tokens_max, overlap_tokens).chunk(Document("d", text))


WORDS = st.sampled_from(
    [
        "a",
        "unaffable",
        "U.S.",
        "https://example.org/a?b=c",
        "日本語",
        "한국어",
        "e\u0301te\u0301",
        "x" * 120,
        "…",
        "🙂",
        "[SEP]",
    ]
)
GAPS = st.sampled_from(
    [" ", "  ", "\n", "\n\n", "\r\n\r\n", "\t", ". ", ".\n\n", "! ", "\n# ", "\n\n## ", "\u3000", "", "。"]
)
PROSE = st.lists(st.tuples(WORDS, GAPS), max_size=150).map(lambda pairs: "".join(word + gap for word, gap in pairs))
DIRT = st.text(st.sampled_from("a b\n\x00\x01\u200b\u0301\ufffd#."), max_size=300)
TEXTS = st.one_of(PROSE, DIRT, st.text(max_size=300))


def check(text: str, chunks: list[Chunk], tokens_max: int) -> None:
    end = 0
    uncovered = []
    for index, chunk in enumerate(chunks):
        assert chunk.chunk_index == index
        assert chunk.text == text[chunk.char_start : chunk.char_end]
        assert chunk.text == chunk.text.strip() != ""
        assert end <= chunk.char_start < chunk.char_end <= len(text)
        assert 1 <= chunk.token_count <= tokens_max
        assert len(chunk.text) <= 16 * tokens_max + 2 * UNREAD_CHARS_MAX
        assert chunk.line_start == 1 + text.count("\n", 0, chunk.char_start)
        assert chunk.line_end == 1 + text.count("\n", 0, chunk.char_end)
        uncovered.append(text[end : chunk.char_start])
        end = chunk.char_end
    uncovered.append(text[end:])
    for gap in uncovered:
        # White space, or a run of over 64 characters that the tokenizer drops.
        assert not gap.strip() or (len(gap) > UNREAD_CHARS_MAX and not tokenizer().encode(gap))


@given(text=TEXTS, tokens_max=st.integers(16, 60))
@settings(max_examples=400, deadline=None)
def test_chunks_are_slices_in_order_that_hold_all_there_is_to_read(text: str, tokens_max: int) -> None:
    try:
        chunks = cut(text, tokens_max)
    except InvalidInput:
        assert not tokenizer().encode(text)
        return
    check(text, chunks, tokens_max)
    lengths = [end - start for start, end in tokenizer().encode_with_offsets(text).offsets.tolist()]
    pieces = sum(max(math.ceil(length / (16 * tokens_max)), 1) for length in lengths)  # of tokens over the limit
    assert sum(chunk.token_count for chunk in chunks) == pieces


@given(
    words=st.lists(
        st.sampled_from(["one", "two three.", "four!", "five,", "six\n", "seven\n\n"]), min_size=1, max_size=400
    )
)
@settings(max_examples=100, deadline=None)
def test_no_chunk_is_tiny_and_each_counts_what_its_text_has(words: list[str]) -> None:
    chunks = cut(" ".join(words), 32)
    total = sum(chunk.token_count for chunk in chunks)
    for chunk in chunks:
        assert chunk.token_count == tokenizer().count(chunk.text)
        assert chunk.token_count >= min(8, total)


def test_a_short_text_is_one_chunk() -> None:
    (chunk,) = cut("  \n Hello, world! \t\n")
    assert chunk == Chunk(0, 4, 17, 4, "Hello, world!", line_start=2, line_end=2, headings=())


def test_cuts_prefer_paragraphs_then_sentences_then_words() -> None:
    sentence = "One two three four. "
    assert [chunk.text for chunk in cut("one " * 12 + "\n\n" + "two " * 13)] == [
        "one " * 11 + "one",
        "two " * 12 + "two",
    ]
    assert [chunk.text for chunk in cut(sentence * 6)] == [(sentence * 2).strip()] * 3
    assert [chunk.text for chunk in cut("word " * 20)] == ["word " * 9 + "word"] * 2
    paragraphs = cut("a b. c d. e f.\n\ng h i. j k l. m n o p.")
    assert [chunk.text for chunk in paragraphs] == ["a b. c d. e f.", "g h i. j k l. m n o p."]


def test_a_rest_is_shared_evenly() -> None:
    assert [chunk.token_count for chunk in cut("word " * 260, 256)] == [130, 130]
    assert [chunk.token_count for chunk in cut("word " * 800, 256)] == [160] * 5


def test_a_text_within_the_limit_is_one_chunk() -> None:
    assert [chunk.token_count for chunk in cut("word " * 256, 256)] == [256]


def test_a_heading_stays_with_what_follows() -> None:
    text = (
        "alpha beta gamma delta epsilon zeta.\n\n# Part\n\n## Chapter two\n\n" + "body text goes on and on here. " * 2
    )
    first, *rest = cut(text)
    assert first.text == "alpha beta gamma delta epsilon zeta."
    assert rest[0].text.startswith("# Part\n\n## Chapter two\n\nbody")


def test_words_are_not_cut_where_punctuation_is_near() -> None:
    text = ",".join(["unaffable"] * 30)
    for chunk in cut(text):
        assert set(chunk.text.strip(",").split(",")) == {"unaffable"}


def test_scripts_without_spaces_are_cut_between_characters() -> None:
    chunks = cut("日本語の文章です" * 10)
    assert "".join(chunk.text for chunk in chunks) == "日本語の文章です" * 10
    chunks = cut("한국어" * 30)
    assert "".join(chunk.text for chunk in chunks) == "한국어" * 30


def test_a_word_of_any_length_and_a_desert_of_blanks_are_bounded() -> None:
    chunks = cut("x" * 10_000)
    assert "".join(chunk.text for chunk in chunks) == "x" * 10_000
    assert max(len(chunk.text) for chunk in chunks) <= 256
    blanks = cut("begin" + " " * 100_000 + "end")
    assert [chunk.text for chunk in blanks] == ["begin", "end"]


def test_control_characters_and_combining_accents() -> None:
    (chunk,) = cut("\x00\x01a\x00b e\u0301\u0302 \x02")
    assert chunk.text == "\x00\x01a\x00b e\u0301\u0302 \x02"
    begin, end = cut("begin " + "\x00" * 1000 + " end")
    assert (begin.text, end.text) == ("begin", "end")


@pytest.mark.parametrize("text", ["\x00\x01\x02", "\u200b\u200b", "\ufffd", " \n\x07\n "])
def test_a_text_that_the_tokenizer_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="nothing that the tokenizer can read") as caught:
        cut(text)
    assert caught.value.field == "text"


def test_special_tokens_in_a_text_are_text() -> None:
    (chunk,) = cut("[CLS] [PAD] [SEP]")
    assert chunk.token_count == len(tokenizer().encode("[CLS] [PAD] [SEP]")) > 3


def test_windows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"Sentence number {number} is here, unaffably. \n" for number in range(300))
    whole = cut(text, 64)
    monkeypatch.setattr("ingest.chunking.WINDOW_CHARS", 500)
    assert cut(text, 64) == whole


def test_a_million_tokens() -> None:
    text = ("Long documents are read once, and no part of them is lost.\n\n" + "More of it follows. " * 10) * 17_000
    chunks = cut(text, 256)
    check(text, chunks, 256)
    assert sum(chunk.token_count for chunk in chunks) > 1_000_000
    assert min(chunk.token_count for chunk in chunks) >= 64


def test_passages_hold_the_title_on_one_line_cut_after_its_first_tokens() -> None:
    document = Document("d", "Text.", title="  A\nlong\ttitle ")
    made = chunker()
    (chunk,) = made.chunk(document)
    assert made.passage(document, chunk) == "A long title\nText."
    assert made.passage(Document("d", "Text."), chunk) == "Text."
    title = made.passage_title(" ".join(f"w{number}" for number in range(200)))
    assert tokenizer().count(title) == TITLE_TOKENS_MAX
    assert made.passage_title("한" * 100) in "한" * 100


@given(title=st.text(max_size=200), text=PROSE)
@settings(max_examples=100, deadline=None)
def test_a_passage_never_exceeds_what_is_announced(title: str, text: str) -> None:
    made = chunker(128)
    document = Document("d", text + " end", title=unicodedata.normalize("NFC", title))
    for chunk in made.chunk(document):
        assert tokenizer().count(made.passage(document, chunk)) + 1 <= made.passage_tokens_max


def test_the_fingerprint_names_the_parameters() -> None:
    assert chunker(128).fingerprint == "v2-code1-tokens128-title64"
    assert chunker(129).fingerprint != chunker(128).fingerprint
    assert chunker(128, 32).fingerprint == "v2-code1-tokens128-overlap32-title64"


def test_too_small_a_limit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 16"):
        chunker(15)


def test_numbers_are_plain() -> None:
    for chunk in cut("Hello. " * 30, 32, 8):
        numbers = (chunk.char_start, chunk.char_end, chunk.token_count, chunk.line_start, chunk.line_end)
        assert not any(isinstance(number, np.generic) for number in numbers)


def test_lines_end_with_line_feeds() -> None:
    text = "one two\rthree\r\n\u2028four\n\n" + "five six. " * 8 + "\nseven"
    first, *_, last = cut(text)
    assert (first.line_start, last.line_end) == (1, 5)


def test_a_chunk_names_the_headings_it_stands_under() -> None:
    body = "Some words about it here. " * 12
    text = f"Before.\n\n# Guide\n\n{body}\n\n## Install\n\n{body}\n\nUse\n---\n\n{body}\n\nIndex\n=====\n\n{body}"
    chunks = cut(text, 32)
    paths = [chunk.headings for chunk in chunks]
    assert paths[:2] == [(), ("Guide",)]
    assert list(dict.fromkeys(paths)) == [(), ("Guide",), ("Guide", "Install"), ("Guide", "Use"), ("Index",)]
    for chunk in chunks:
        assert not chunk.text.startswith("## Install") or chunk.headings == ("Guide", "Install")


def test_comments_of_other_languages_are_no_headings() -> None:
    text = "# not a heading\nname: value\n"
    (chunk,) = chunker().chunk(Document("d", text), "yaml")
    assert chunk.headings == ()
    for language in ("", "Markdown"):
        (chunk,) = chunker().chunk(Document("d", text), language)
        assert chunk.headings == ("not a heading",)


@given(text=TEXTS, more=TEXTS)
@settings(max_examples=200, deadline=None)
def test_what_follows_is_cut_as_if_alone_and_has_its_place_in_the_whole(text: str, more: str) -> None:
    try:
        alone = cut(more)
    except InvalidInput:
        alone = []
    chunks = chunker().chunk(Document("d", text + more), begin=len(text)) if text else alone
    whole = text + more
    assert [chunk.text for chunk in chunks] == [chunk.text for chunk in alone]
    for chunk, own in zip(chunks, alone, strict=True):
        assert (chunk.chunk_index, chunk.token_count) == (own.chunk_index, own.token_count)
        assert (chunk.char_start, chunk.char_end) == (len(text) + own.char_start, len(text) + own.char_end)
        assert chunk.text == whole[chunk.char_start : chunk.char_end]
        assert chunk.line_start == 1 + whole.count("\n", 0, chunk.char_start)
        assert chunk.line_end == 1 + whole.count("\n", 0, chunk.char_end)


def test_headings_stand_above_what_follows() -> None:
    text = "# Guide\n\n## Install\n\nFirst this.\n\n```\n"
    more = "# a comment\n```\n\nThen that.\n\n## Use\n\nAt last, when all is done that has to be done.\n"
    chunks = chunker().chunk(Document("d", text + more), begin=len(text))
    assert chunks[0].text.startswith("# a comment")
    assert chunks[0].headings == ("Guide", "Install")
    assert chunks[-1].headings == ("Guide", "Use")
    assert chunker().chunk(Document("d", text + " \n"), begin=len(text)) == []


@given(text=TEXTS, tokens_max=st.integers(32, 60), overlap_tokens=st.integers(1, 16))
@settings(max_examples=200, deadline=None)
def test_overlapping_chunks_keep_to_the_limits(text: str, tokens_max: int, overlap_tokens: int) -> None:
    try:
        chunks = cut(text, tokens_max, overlap_tokens)
    except InvalidInput:
        assert not tokenizer().encode(text)
        return
    plain = cut(text, tokens_max - overlap_tokens)
    assert [chunk.char_end for chunk in chunks] == [chunk.char_end for chunk in plain]
    previous = 0
    for chunk, own in zip(chunks, plain, strict=True):
        assert chunk.text == text[chunk.char_start : chunk.char_end] == chunk.text.strip()
        assert previous <= chunk.char_start <= own.char_start
        assert own.token_count <= chunk.token_count <= min(own.token_count + overlap_tokens, tokens_max)
        assert len(chunk.text) <= 16 * tokens_max + 2 * UNREAD_CHARS_MAX
        assert chunk.line_start == 1 + text.count("\n", 0, chunk.char_start)
        assert chunk.line_end == 1 + text.count("\n", 0, chunk.char_end)
        assert chunk.headings == own.headings
        previous = chunk.char_start


def test_an_overlap_begins_with_a_sentence_a_line_or_a_word() -> None:
    sentences = cut("One two three four five six. " * 20, 64, 16)
    assert all(chunk.text.startswith("One two") for chunk in sentences)
    assert [chunk.token_count for chunk in sentences[1:-1]] == [
        14 + chunk.token_count for chunk in cut("One two three four five six. " * 20, 48)[1:-1]
    ]
    lines = cut("one two three four five six seven\n" * 20, 64, 16)
    assert all(chunk.text.startswith("one two") for chunk in lines)
    assert all(later.char_start < earlier.char_end for earlier, later in pairwise(lines))
    words = cut("unaffable " * 60, 64, 16)
    assert all(chunk.text.startswith("unaffable") for chunk in words)
    assert all(later.char_start < earlier.char_end for earlier, later in pairwise(words))


@pytest.mark.parametrize(("tokens_max", "overlap_tokens"), [(256, -1), (256, 129), (16, 1), (24, 9)])
def test_too_much_overlap_is_refused(tokens_max: int, overlap_tokens: int) -> None:
    with pytest.raises(InvalidInput, match=f"overlap_tokens is {overlap_tokens}; with chunks of") as caught:
        chunker(tokens_max, overlap_tokens)
    assert caught.value.field == "overlap_tokens"
