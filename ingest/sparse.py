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
_WORD = re.compile(r"\b\w\w+\b")


def sparse_passage(text: str) -> SparseVector:
    """Weigh the terms of a passage. Empty where it has none (only stop words, signs or single letters)."""
    counts = _count_terms(text)
    frequencies = np.array(list(counts.values()), dtype=np.float32)
    saturation = K1 * (1 - B + B * frequencies.sum() / LENGTH_EXPECTED)
    return SparseVector(_indices(counts), (frequencies / (frequencies + saturation)).astype(np.float32))


def sparse_query(text: str) -> SparseVector:
    """Count the terms of a query. Empty where it has none: such a query finds nothing by its words."""
    counts = _count_terms(text)
    return SparseVector(_indices(counts), np.array(list(counts.values()), dtype=np.float32))


def split_terms(text: str) -> list[str]:
    """Split a text into terms: words of two letters or more, lower case, no stop words, English stems."""
    # A stemmer keeps a cache and is not safe in two threads; making one costs microseconds.
    return list(Stemmer.Stemmer("english").stemWords(_words(text)))


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


def _count_terms(text: str) -> Counter[int]:
    """Count terms by hash, so that two terms of one hash (one pair in four billion) still make a unique index."""
    return Counter(map(_hashed, _words(text)))


@lru_cache(maxsize=_WORDS_KEPT)
def _hashed(word: str) -> int:
    return mmh3.hash(Stemmer.Stemmer("english").stemWord(word), signed=False)


def _indices(counts: Counter[int]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array(list(counts), dtype=np.uint32)
