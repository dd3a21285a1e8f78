"""Texts that say the same again: known by the runs of words that they share (Broder 1997). Knows no index."""

from __future__ import annotations

# A run of so many words seldom stands in two texts by chance.
SHINGLE_WORDS = 5
# The share of a text's runs that stand in what came before, from which on it says nothing new.
SHARE = 0.8


class Said:
    """What has been said so far."""

    def __init__(self) -> None:
        self._shingles: set[tuple[str, ...]] = set()

    def adds(self, text: str) -> bool:
        """Say whether a text has something new, and if so, remember it."""
        shingles = _shingles(text)
        if len(shingles & self._shingles) >= SHARE * len(shingles):
            return False
        self._shingles |= shingles
        return True


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    last = max(len(words) - SHINGLE_WORDS, 0)
    return {tuple(words[start : start + SHINGLE_WORDS]) for start in range(last + 1)}
