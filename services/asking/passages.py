"""What a model is given to answer from, and how a citation names it. Knows no model, and no index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CITED = re.compile(r"\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\]")


@dataclass(frozen=True, slots=True)
class NumberedPassage:
    """A passage of a document, and the number that it is cited by, from 1."""

    number: int
    document_id: str
    title: str
    headings: tuple[str, ...]  # outermost first; of source code, the definitions around it
    line_start: int  # from 1; 0 where it is not known
    line_end: int  # inclusive
    text: str

    @property
    def place(self) -> str:
        """Where it stands, as editors and compilers write it: the document and its lines."""
        return place_of(self.document_id, self.line_start, self.line_end)

    @property
    def name(self) -> str:
        """The title and the headings it stands under; empty where the place already says all there is."""
        title = "" if self.title == self.document_id or self.title in self.headings[:1] else self.title
        return " › ".join(filter(None, (title, *self.headings)))


@dataclass(frozen=True, slots=True)
class Cited:
    """Which passages an answer cites."""

    passages: Sequence[NumberedPassage]  # by number
    unknown: Sequence[int]  # numbers that no passage has


def place_of(path: str, line_start: int, line_end: int) -> str:
    """Write a file and its lines as editors and compilers do; without lines where ``line_start`` is 0."""
    if not line_start:
        return path
    lines = f"{line_start}-{line_end}" if line_end > line_start else f"{line_start}"
    return f"{path}:{lines}"


def find_cited(answer: str, passages: Sequence[NumberedPassage]) -> Cited:
    """Read the numbers in brackets in an answer: [1], and [1, 3]."""
    numbers = {int(number) for found in _CITED.finditer(answer) for number in found[1].split(",")}
    known = {passage.number: passage for passage in passages}
    return Cited(
        [passage for number, passage in sorted(known.items()) if number in numbers], sorted(numbers - known.keys())
    )
