"""BM25 over a training set, by bm25s: stemmed words of what the token ids spell. Its memory grows with the set."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.errors import MambaSearchError
from encoder.tokenizer import Tokenizer
from encoder.training.units import Scores, Units

K1, B = 0.9, 0.4  # as search by words has them


class LexicalRanker:
    """Scores every passage of a set for one query after the other."""

    def __init__(self, units: Units, tokenizer: Tokenizer) -> None:
        """Read all units; :class:`MambaSearchError` where bm25s is missing."""
        # bm25s begins JAX where that is installed, which takes most of a GPU for itself: in every process that mines.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # noqa: TID251 - writes for JAX, reads nothing
        try:
            import bm25s
            import Stemmer
        except ModuleNotFoundError as error:
            raise MambaSearchError(f"The package {error.name} is missing; install mamba-search[train].") from error
        self._units, self._tokenizer = units, tokenizer
        self._tokenize, self._stemmer = bm25s.tokenize, Stemmer.Stemmer("english")
        self._index = bm25s.BM25(k1=K1, b=B)
        texts = [tokenizer.decode(units.tokens(number).tolist()) for number in range(len(units))]
        tokenized = bm25s.tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)
        # Where no unit has a word, nothing is found by words.
        self._empty = not tokenized.vocab or set(tokenized.vocab) == {""}
        if not self._empty:
            self._index.index(tokenized, show_progress=False)

    def scores(self, query: NDArray[np.integer]) -> Scores:
        """Score all passages for a query's token ids, ``(passages,)``; -inf where one has no text."""
        words: Sequence[str] = self._tokenize(
            self._tokenizer.decode(query.tolist()),
            stopwords="en",
            stemmer=self._stemmer,
            show_progress=False,
            return_ids=False,
        )[0]
        known = [] if self._empty else self._index.get_tokens_ids(words)
        if not known:
            return self._units.best(np.zeros(len(self._units), dtype=np.float32))
        return self._units.best(np.asarray(self._index.get_scores_from_ids(known), dtype=np.float32))
