"""Where source code pauses, and which definitions its tokens lie in. Knows no chunks.

A line, with the blanks after it, is not divided unless it alone is over the limit of a chunk; between lines, what
begins there decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.boundaries import LEVEL_HEADED, LEVEL_LINE, LEVEL_SENTENCE, LEVEL_UNDIVIDED, LEVEL_WORD, word_levels
from encoder.chunk_cuts import CHARS_PER_TOKEN_MAX
from ingest.structure.code_parser import SOURCE_BYTES_MAX, CodeParser, can_parse
from ingest.structure.outline import GRADES, GRADES_STATEMENT, Definition

# The first character of every line that has more than blanks. Possessive: a million blank lines are read once.
_LINE_BEGIN = re.compile(r"(?:\A|\n)\s*+(?=\S)")
# Levels of the outline's grades, on the scale of ``encoder.boundaries`` and beyond its end. A block's first statement
# is worse to begin with than any other line: it belongs to what opens the block.
_LEVELS = np.array(
    [LEVEL_LINE, LEVEL_HEADED, LEVEL_WORD, *range(LEVEL_SENTENCE, LEVEL_SENTENCE + GRADES - min(GRADES_STATEMENT))],
    dtype=np.int8,
)


@dataclass(frozen=True, slots=True)
class SourceCode:
    """What is known of a tokenized source."""

    levels: NDArray[np.int8]  # (l,): of the place before each token, as ``encoder.boundaries`` grades prose
    definitions: list[Definition]  # in tokens, outer before inner

    def paths(self, tokens: Iterable[int]) -> list[tuple[str, ...]]:
        """Name the definitions around each of some tokens, outermost first; the tokens are ascending."""
        paths: list[tuple[str, ...]] = []
        around: list[Definition] = []
        coming = iter(self.definitions)
        following = next(coming, None)
        for token in tokens:
            while following and following.first <= token:
                while around and around[-1].last <= following.first:
                    around.pop()
                around.append(following)
                following = next(coming, None)
            while around and around[-1].last <= token:
                around.pop()
            paths.append(around[-1].path if around else ())
        return paths


def read_source(
    parser: CodeParser, text: str, language: str, starts: NDArray[np.int64], ends: NDArray[np.int64], tokens_max: int
) -> SourceCode | None:
    """Read the structure of a source whose chunks have at most ``tokens_max`` tokens.

    ``starts`` and ``ends`` are the tokens' offsets in code points, both ``(l,)``. None where the language is not known,
    its grammar is not installed, the source has over 2 MiB, or its parsing reaches a limit.
    """
    if not can_parse(language) or len(text) > SOURCE_BYTES_MAX:
        return None
    byte_of = _byte_offsets(text)
    if byte_of[-1] > SOURCE_BYTES_MAX:
        return None
    lines = _lines(text, starts, ends, tokens_max)
    if lines is None:
        return None
    levels, tokens, positions = lines
    outline = parser.parse(text, language, byte_of[positions].tolist())
    if outline is None:
        return None
    grades = np.array(outline.grades, dtype=np.int64)
    graded = np.flatnonzero(grades)
    levels[tokens[graded]] = _LEVELS[grades[graded]]
    borders = [*tokens.tolist(), len(starts)]
    definitions = [Definition(borders[first], borders[last], path) for first, last, path in outline.definitions]
    return SourceCode(levels, definitions)


def _byte_offsets(text: str) -> NDArray[np.int64]:
    """Give each code point's offset in UTF-8, and the length: ``(l + 1,)``."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    widths = 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([[0], np.cumsum(widths)])


def _lines(
    text: str, starts: NDArray[np.int64], ends: NDArray[np.int64], tokens_max: int
) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int64]] | None:
    """Grade by lines alone; give also the tokens that a cut may come before, and where in the text each begins.

    None where there is nothing but blanks, of which some tokenizers make tokens.
    """
    begins = np.fromiter((match.end() for match in _LINE_BEGIN.finditer(text)), dtype=np.int64)
    firsts = np.searchsorted(ends, begins, side="right")  # the token that holds, or follows, a line's first character
    # Of lines without tokens before a token, the last one has it.
    real = np.append(firsts[1:] != firsts[:-1], firsts[-1:] < len(starts)) & (firsts < len(starts))
    begins, firsts = begins[real], firsts[real]
    if not len(firsts):
        return None
    lasts = np.append(firsts[1:], len(starts)) - 1
    chars_max = tokens_max * CHARS_PER_TOKEN_MAX
    long = (lasts - firsts >= tokens_max) | (ends[lasts] - starts[firsts] > chars_max)
    levels = np.full(len(starts), LEVEL_UNDIVIDED, dtype=np.int8)
    inside = np.zeros(len(starts), dtype=bool)
    inside[firsts[0] :] = np.repeat(long, lasts - firsts + 1)
    levels[inside] = word_levels(starts, ends)[inside]
    levels[firsts] = LEVEL_LINE
    positions = starts.copy()
    positions[firsts] = begins
    tokens = np.flatnonzero(levels > LEVEL_UNDIVIDED)
    return levels, tokens, positions[tokens]
