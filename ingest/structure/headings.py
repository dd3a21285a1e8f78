"""The headings of Markdown, and which of them a part of a text stands under. Knows no chunks.

Read as CommonMark has them: ``#`` and underlined, not in fenced or indented code. Narrower where plain texts would be
misread: an underline has three characters or more, and what it makes a heading is one line after a blank one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

HEADING_CHARS_MAX = 200
_LINE_CHARS_MAX = 2000  # of a heading's line, that are looked at

_FENCE_OR_HEADING = re.compile(
    r"""
    ^[ ]{0,3} (?:
        (?P<fence> `{3,} (?=[^`\n]*$) | ~{3,} )
      | (?P<marks> \#{1,6} ) [ \t]+ (?P<text> [^\n]* )
      | (?P<line> (?![-*+][ \t]) [^\s\#>|`~=] [^\n]* ) \n [ ]{0,3} (?P<underline> ={3,} | -{3,} ) [ \t\r]*$
    )
    """,
    re.MULTILINE | re.VERBOSE,
)
_FENCE_END = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t\r]*$", re.MULTILINE)
_MARKS = ("#", "```", "~~~", "===", "---")  # a text with none of them has no heading
_CLOSING_MARKS = re.compile(r"(?:^|[ \t])#+\s*$")


class Heading(NamedTuple):
    """A heading of a text; offsets in code points."""

    start: int
    end: int
    level: int  # from 1
    text: str


def heading_paths(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[str, ...]]:
    """Name the headings above the beginning of each span of a text, outermost first.

    A span that begins with a heading has it in its path, and deeper ones that follow it right away. The spans ascend;
    the text is read once.
    """
    coming = read_headings(text)
    following = next(coming, None)
    above: list[Heading] = []
    paths: list[tuple[str, ...]] = []
    for start, end in spans:
        while following and (following.start <= start or _goes_on(text, above, following, start, end)):
            while above and above[-1].level >= following.level:
                above.pop()
            above.append(following)
            following = next(coming, None)
        paths.append(tuple(heading.text for heading in above))
    return paths


def read_headings(text: str) -> Iterator[Heading]:
    """Give the headings of a text in their order, in time linear in its length."""
    if not any(mark in text for mark in _MARKS):
        return
    position = 0
    while match := _FENCE_OR_HEADING.search(text, position):
        position = match.end()
        if match["fence"]:
            position = _end_of_fence(text, position, match["fence"])
            continue
        if match["marks"]:
            start, level = match.start("marks"), len(match["marks"])
            line = _CLOSING_MARKS.sub("", match["text"][:_LINE_CHARS_MAX])
        else:
            start, level = match.start("line"), 1 if match["underline"][0] == "=" else 2
            if not _is_after_blank_line(text, match.start()):
                continue
            line = match["line"][:_LINE_CHARS_MAX]
        if name := " ".join(line.split())[:HEADING_CHARS_MAX]:
            yield Heading(start, position, level, name)


def _goes_on(text: str, above: list[Heading], following: Heading, start: int, end: int) -> bool:
    """Whether a span begins with a heading right above a deeper one that is in the span, too."""
    return (
        bool(above)
        and start < above[-1].end
        and following.start < end
        and following.level > above[-1].level
        and not text[above[-1].end : following.start].strip()
    )


def _is_after_blank_line(text: str, line_start: int) -> bool:
    above = text.rfind("\n", 0, max(line_start - 1, 0)) + 1
    return not text[above:line_start].strip()


def _end_of_fence(text: str, position: int, fence: str) -> int:
    """Find where fenced code ends: at a fence of the same kind, at least as long, or with the text."""
    for match in _FENCE_END.finditer(text, position):
        if match[1].startswith(fence):
            return match.end()
    return len(text)
