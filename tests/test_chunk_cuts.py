"""Where a text is cut, for levels that are given: what is undivided stays whole while it can."""

import numpy as np

from encoder.boundaries import LEVEL_LINE, LEVEL_UNDIVIDED
from encoder.chunk_cuts import chunk_starts


def cut(sizes: list[int], tokens_max: int) -> list[int]:
    """Cut a text of undivided lines, so many tokens in each."""
    total = sum(sizes)
    starts = np.arange(total) * 2
    levels = np.full(total, LEVEL_UNDIVIDED, dtype=np.int8)
    levels[np.cumsum([0, *sizes[:-1]])] = LEVEL_LINE
    return list(chunk_starts("a " * total, starts, starts + 1, tokens_max, levels))


def test_what_is_undivided_stays_whole_also_in_a_short_chunk() -> None:
    assert cut([3, 63, 60], 64) == [0, 3, 66]
    assert cut([63, 3], 64) == [0, 63]
    assert cut([60, 60, 3], 64) == [0, 60]
    assert cut([64, 64, 64], 64) == [0, 64, 128]


def test_what_is_over_the_limit_is_cut_at_it() -> None:
    assert cut([150], 64) == [0, 64, 128]
    assert cut([10, 150, 10], 64) == [0, 10, 74, 138]


def test_a_last_token_over_the_limit_of_characters_is_a_chunk() -> None:
    text = "a " + "x" * 5000
    assert list(chunk_starts(text, np.array([0, 2]), np.array([1, 5002]), 256)) == [0, 1]
