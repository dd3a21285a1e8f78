"""Where a tokenized document is cut into chunks: about a paragraph each, where the text itself pauses. Knows no model.

Ingestion cuts documents with it, and training reads them in the same chunks. Every place between two tokens has a level
(heading, paragraph, sentence, line, word, none; other kinds of text may have others); a chunk ends at the best level
within reach, so that none is over the limit and none is left tiny. A text within the limit is one chunk; a longer one
is cut into chunks of five eighths of it on average (160 tokens of 256): a vector tells a paragraph from its neighbours
better than half a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from encoder.boundaries import LEVEL_NONE, LEVEL_SENTENCE, LEVEL_UNDIVIDED, boundary_levels

TOKENS_MAX_DEFAULT = 256
_TARGET_SHARE = 5 / 8  # of the limit, that a chunk of a longer text has on average
CHARS_PER_TOKEN_MAX = 16  # a chunk has at most this many code points per token of its limit


def chunk_starts(
    text: str,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    tokens_max: int = TOKENS_MAX_DEFAULT,
    levels: NDArray[np.int8] | None = None,
) -> Iterator[int]:
    """Give the token that each chunk begins with, the first one (0) included.

    ``starts`` and ``ends`` are the tokens' offsets in ``text``, both ``(l,)`` with at least one token, in code points;
    ``levels``, also ``(l,)``, are those of ``boundary_levels`` unless given. What is undivided is cut only where it
    alone is over the limit, and may make a chunk shorter than others.
    """
    if levels is None:
        levels = boundary_levels(text, starts, ends)
    chars_max = tokens_max * CHARS_PER_TOKEN_MAX
    total = len(starts)
    first = 0
    while True:
        yield first
        by_chars = int(np.searchsorted(ends, starts[first] + chars_max, side="right"))
        limit = min(first + tokens_max, by_chars, total)
        rest = total - first
        share = _share(rest, tokens_max)
        if rest == 1 or (limit == total and (first == 0 or share == rest)):
            return
        least = tokens_max // 4
        upper = max(min(limit, total - least), first + 1)
        lower = max(first + math.ceil(min(share, upper - first) / 2), first + 1)
        if levels[lower : upper + 1].max() < LEVEL_SENTENCE:
            lower = min(lower, first + least)
        if levels[lower : upper + 1].max() == LEVEL_UNDIVIDED:
            if limit == total:
                return
            lower, upper = first + 1, max(limit, first + 1)
        first = _best_cut(text, starts, levels, lower, upper, first + share)


def _share(rest: int, tokens_max: int) -> float:
    """Share what is left evenly: 260 tokens become two halves, not 256 and 4."""
    pieces = max(math.ceil(rest / tokens_max), round(rest / (tokens_max * _TARGET_SHARE)))
    return rest / pieces


def _best_cut(
    text: str, starts: NDArray[np.int64], levels: NDArray[np.int8], lower: int, upper: int, target: float
) -> int:
    """Choose the token in ``[lower, upper]`` to begin the next chunk: the highest level, then nearest to the target."""
    window = levels[lower : upper + 1]
    best = int(window.max())
    places = (window == best).nonzero()[0] + lower
    if best == LEVEL_UNDIVIDED:
        return upper
    if best == LEVEL_NONE:
        outside = [place for place in places if not _inside_word(text, int(starts[place]))]
        places = np.array(outside) if outside else places
    return int(places[np.argmin(np.abs(places - target))])


def _inside_word(text: str, position: int) -> bool:
    return text[position - 1].isalnum() and text[position].isalnum()
