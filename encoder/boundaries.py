"""Where a text pauses: a level for every place between two tokens. Knows no limits, no chunks."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

# What begins at a token, from worst to best place to cut before it.
LEVEL_UNDIVIDED = 0  # the same character as the token before: never cut
LEVEL_NONE = 1  # no white space: inside a word, or at punctuation
LEVEL_HEADED = 2  # inside a heading, or what follows it
LEVEL_WORD = 3
LEVEL_LINE = 4
LEVEL_SENTENCE = 5
LEVEL_PARAGRAPH = 6
LEVEL_HEADING = 7

# Possessive repeats (++, *+): a text of a million blanks is read once, not a million times.
_LINE = re.compile(r"\n")
# One set at the beginning of an expression: what cannot begin a match is passed over three times as fast.
_SENTENCE = re.compile(r"""[.!?…。！？](?:(?<=[。！？])|["'”’)\]]*+\s++(?![a-z]))""")
_PARAGRAPH = re.compile(r"\n[^\S\n]*+\n")
# One or more Markdown headings in a row, with the blanks after them.
_HEADINGS = re.compile(r"^(?:#{1,6}[^\S\n]++\S[^\n]*+(?:\n\s*+|\Z))+", re.MULTILINE)


def boundary_levels(text: str, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int8]:
    """Grade the place before each token; ``starts``, ``ends`` and the result are ``(l,)``, offsets in code points.

    A heading belongs to what follows it, so the places inside a heading and right after it are poor ones.
    """
    levels = word_levels(starts, ends)
    for pattern, level in ((_LINE, LEVEL_LINE), (_SENTENCE, LEVEL_SENTENCE), (_PARAGRAPH, LEVEL_PARAGRAPH)):
        levels[_tokens_at([match.end() for match in pattern.finditer(text)], starts)] = level
    headings = [match.span() for match in _HEADINGS.finditer(text)] if "#" in text else []
    if headings:
        first = np.searchsorted(starts, [start for start, _ in headings])
        last = np.searchsorted(starts, [end for _, end in headings])
        for begin, follow in zip(first, last, strict=True):
            inside = levels[begin + 1 : follow + 1]
            inside[inside > LEVEL_HEADED] = LEVEL_HEADED
        levels[first[first < len(levels)]] = LEVEL_HEADING
    levels[1:][starts[1:] < ends[:-1]] = LEVEL_UNDIVIDED
    return levels


def word_levels(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int8]:
    """Grade the place before each token by the tokens alone: whether there is a gap before it."""
    levels = np.full(len(starts), LEVEL_NONE, dtype=np.int8)
    levels[1:][starts[1:] > ends[:-1]] = LEVEL_WORD
    levels[1:][starts[1:] < ends[:-1]] = LEVEL_UNDIVIDED
    return levels


def _tokens_at(positions: list[int], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the first token at or after each position."""
    found = np.searchsorted(starts, np.array(positions, dtype=np.int64))
    return found[found < len(starts)]
