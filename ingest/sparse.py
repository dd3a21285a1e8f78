"""Text to BM25 term weights: the part of BM25 that depends on one text alone. Knows no index.

A chunk's vector holds ``tf / (tf + k1 * (1 - b + b * length / LENGTH_EXPECTED))`` for each of its terms; a query's
holds how often each term stands in it. The index multiplies by the inverse document frequency when it scores
(``ln(1 + (N - n + 0.5) / (n + 0.5))``, Qdrant's ``Modifier.IDF``), so weights never go stale as the corpus grows.
For the same reason the average length is a constant: chunks are all cut to one size, and their true average moves
only between 30 terms (functions) and 100 (articles). ``tests/benchmarks/compare_bm25.py`` measures what it costs.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

import mmh3
import numpy as np
import Stemmer
from numpy.typing import NDArray

from ingest.index.interface import SparseVector

K1 = 0.9
B = 0.4
LENGTH_EXPECTED = 48.0  # terms of a passage, stop words not counted
_STOP_WORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was
will with
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_WORDS_KEPT = 1 << 16  # with their terms' hashes; most words of a text are among so many
_WORD = re.compile(r"\w\w+")
# Of ASCII, what is part of a word; all else becomes a blank.
_BLANKED = {code: " " for code in range(128) if not _WORD.fullmatch(2 * chr(code))}


def sparse_passage(text: str) -> SparseVector:
    """Weigh the terms of a passage. Empty where it has none (only stop words, signs or single letters)."""
    counts = _count_terms(text)
    frequencies = np.fromiter(counts.values(), dtype=np.float32, count=len(counts))
    saturation = np.float32(K1 * (1 - B + B * float(frequencies.sum()) / LENGTH_EXPECTED))
    return SparseVector(_indices(counts), frequencies / (frequencies + saturation))


def sparse_query(text: str) -> SparseVector:
    """Count the terms of a query. Empty where it has none: such a query finds nothing by its words."""
    counts = _count_terms(text)
    return SparseVector(_indices(counts), np.fromiter(counts.values(), dtype=np.float32, count=len(counts)))


def split_terms(text: str) -> list[str]:
    """Split a text into terms: words of two letters or more, lower case, no stop words, English stems."""
    return _stemmed([word for word in _words(text) if _is_term(word)])


def _words(text: str) -> list[str]:
    """Give the words in lower case, single letters among them where the text is ASCII."""
    lowered = text.lower()
    # Three times as fast as the expression, and most texts are so.
    return lowered.translate(_BLANKED).split() if lowered.isascii() else _WORD.findall(lowered)


def _count_terms(text: str) -> dict[int, int]:
    """Count terms by hash, so that two terms of one hash (one pair in four billion) still make a unique index."""
    counts = Counter(map(_term, _words(text)))
    return {term: count for term, count in counts.items() if term is not None}


@lru_cache(maxsize=_WORDS_KEPT)
def _term(word: str) -> int | None:
    """Hash a word's stem; None where it is not looked for."""
    return mmh3.hash(_stemmed([word])[0], signed=False) if _is_term(word) else None


def _is_term(word: str) -> bool:
    return len(word) > 1 and word not in STOP_WORDS


def _stemmed(words: list[str]) -> list[str]:
    # A stemmer keeps a cache and is not safe in two threads; making one costs microseconds.
    return list(Stemmer.Stemmer("english").stemWords(words))


def _indices(counts: dict[int, int]) -> NDArray[np.uint32]:
    return np.fromiter(counts, dtype=np.uint32, count=len(counts))
