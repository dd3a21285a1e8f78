"""Which words of a passage answer a query, and which part of a long passage to show. Knows no terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ingest.sparse import split_terms

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Span:
    """A slice of a text, in code points; the end is exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a passage on one line, with the words in it that match."""

    text: str
    marks: tuple[Span, ...]
    cut_before: bool
    cut_after: bool


def one_line(text: str, chars_max: int | None = None) -> str:
    """Bring a text to one line that is safe to show: control characters could steer a terminal and become blanks."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if chars_max is None or len(line) <= chars_max else line[: chars_max - 1] + "…"


def find_matches(text: str, query: str) -> list[Span]:
    """Find the words of a text that share an English stem with a word of the query (as BM25 compares them)."""
    wanted = set(split_terms(query))
    words = [Span(*found.span()) for found in _WORD.finditer(text)]
    return [word for word in words if wanted.intersection(split_terms(text[word.start : word.end]))]


def take_excerpt(text: str, query: str, chars_max: int | None) -> Excerpt:
    """Take the part of a passage, at most ``chars_max`` long, that holds the most different words of the query.

    None takes all. White space becomes single blanks; words stay whole.
    """
    line = one_line(text)
    matches = find_matches(line, query)
    if chars_max is None or len(line) <= chars_max:
        return Excerpt(line, tuple(matches), cut_before=False, cut_after=False)
    start, end = _best_window(line, matches, chars_max)
    marks = tuple(
        Span(word.start - start, word.end - start) for word in matches if start <= word.start < word.end <= end
    )
    return Excerpt(line[start:end], marks, cut_before=start > 0, cut_after=end < len(line))


def _best_window(line: str, matches: Sequence[Span], chars_max: int) -> tuple[int, int]:
    """Choose a window of whole words: the most different matches, then the most, then the earliest."""
    best, best_score = 0, (0, 0)
    for first in matches:
        start = max(first.start - chars_max // 4, 0)
        inside = [word for word in matches if start <= word.start and word.end <= start + chars_max]
        score = (len({line[word.start : word.end].lower() for word in inside}), len(inside))
        if score > best_score:
            best, best_score = start, score
    start = min(best, len(line) - chars_max)
    end = start + chars_max
    if start > 0:
        start = line.find(" ", start, end) + 1 or start
    if end < len(line):
        end = max(line.rfind(" ", start, end), start) if " " in line[start:end] else end
    return start, end
