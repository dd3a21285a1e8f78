"""Headings of Markdown: what is one, what only looks like one, and which of them a span stands under."""

import time

import pytest

from ingest.structure.headings import HEADING_CHARS_MAX, heading_paths, read_headings


def names(text: str) -> list[tuple[int, str]]:
    return [(heading.level, heading.text) for heading in read_headings(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# One", [(1, "One")]),
        ("###### Six  ", [(6, "Six")]),
        ("   ## Indented \t words ##", [(2, "Indented words")]),
        ("# C# and F#\r\n", [(1, "C# and F#")]),
        ("# Trailing ### \r\n## Next", [(1, "Trailing"), (2, "Next")]),
        ("One\n===", [(1, "One")]),
        ("Two *words*\r\n-----\r\n", [(2, "Two *words*")]),
        ("text\n\n 1. Numbered\n------- \ntext", [(2, "1. Numbered")]),
        ("# Über 日本語 🙂", [(1, "Über 日本語 🙂")]),
    ],
)
def test_headings(text: str, found: list[tuple[int, str]]) -> None:
    assert names(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "#hashtag",
        "####### seven",
        "    # indented code",
        "\t# indented code",
        "text # no",
        "#",
        "# ",
        "# ##",
        "\\# escaped",
        "---\ntitle: front matter\n---\n",
        "one line\nof a paragraph\n-----",
        "- item\n------",
        "| a | b |\n-----",
        "a\n--",
        "Yours\n-- \nA",
        "a\n\n---\n\nb",
        "===",
        "a\n=== b",
    ],
)
def test_what_is_no_heading(text: str) -> None:
    assert names(text) == []


def test_fenced_code_has_no_headings() -> None:
    text = "# A\n```sh\n# no\n~~~\n# no\n```\n# B\n~~~~ x`y\n# no\n~~~\nNo\n===\n~~~~\n## C\n```inline``` # no\n# D\n"
    assert names(text) == [(1, "A"), (1, "B"), (2, "C"), (1, "D")]
    assert names("# A\n````\n```\n# no\n````\n# B") == [(1, "A"), (1, "B")]
    assert names("# A\n```\n# no end\n# of it") == [(1, "A")]
    assert names("  ```\n# no\n   ```   \r\n# A") == [(1, "A")]


def test_a_long_heading_is_cut() -> None:
    ((_, name),) = names("# " + "word " * 100_000)
    assert len(name) == HEADING_CHARS_MAX


def test_offsets_hold_the_heading() -> None:
    text = "a\n\n  ## B ##\n\nC\n---\n"
    assert [text[found.start : found.end] for found in read_headings(text)] == ["## B ##", "C\n---"]


def test_paths_follow_the_levels() -> None:
    text = "0\n# A\n1\n### B\n2\n## C\n3\n# D\n4\n"
    places = [text.index(digit) for digit in "01234"]
    spans = [(place, place + 1) for place in places]
    assert heading_paths(text, spans) == [(), ("A",), ("A", "B"), ("A", "C"), ("D",)]


def test_a_span_that_begins_with_headings_has_them_in_its_path() -> None:
    text = "# A\n\n## B\n\nbody\n\n## C\nbody\n# D\n# E\nbody"
    third, fourth = text.index("## C"), text.index("# D")
    assert heading_paths(text, [(0, third), (third, fourth), (fourth, len(text))]) == [("A", "B"), ("A", "C"), ("D",)]
    assert heading_paths(text, [(0, 5), (5, len(text))]) == [("A",), ("A", "B")]
    middle = text.index("body")
    assert heading_paths(text, [(2, middle), (middle, len(text))]) == [("A", "B"), ("A", "B")]


@pytest.mark.parametrize(
    "line",
    ["# a\n", "a\n---\n", "```\n", "~~~\n~~~~\n", "=" * 1000, "#" * 1000, "`" * 1000 + "\n", "\n", "   ", "a \n\n"],
)
def test_reading_takes_linear_time(line: str) -> None:
    text = line * (2_000_000 // len(line))
    started = time.monotonic()
    heading_paths(text, [(place, place + 500) for place in range(0, len(text), 500)])
    assert time.monotonic() - started < 20
