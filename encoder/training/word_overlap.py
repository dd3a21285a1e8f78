"""How far passages share a query's words: BM25 over token ids, on the training device, for all pairs of a batch.

What words find and what a teacher's embeddings find err differently; added to the teacher's cosines, the overlap makes
the better teacher where names and terms decide. That embeddings can learn it: Chen et al. 2022, "Salient Phrase Aware
Dense Retrieval" (arXiv 2110.06918). Tokens stand for words here: common pieces of words weigh next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np
import torch
from torch import Tensor

from encoder.training.examples import TrainingSet
from encoder.training.lexical import K1, B
from encoder.training.rows import TextRows

_SAMPLE = 4096  # passages of each set that tell how common tokens are
_SAMPLE_TOKENS = 512  # of each of them


class WordOverlap:
    """Scores pairs of texts by their common tokens, each weighed by its rarity."""

    def __init__(self, rarity: Tensor, average_length: float, width_max: int) -> None:
        """Take BM25's inverse document frequency of each token, ``(vocabulary,)``, and passages' mean length.

        ``width_max`` is the width of the widest rows that will come.
        """
        self._rarity = rarity
        self._average_length = average_length
        self.width_max = width_max

    @classmethod
    def of(cls, sets: Iterable[TrainingSet], vocabulary_size: int, width_max: int, device: torch.device) -> Self:
        """Count in how many passages of a sample of all sets each token occurs."""
        occurs = np.zeros(vocabulary_size, dtype=np.int64)
        passages = tokens = 0
        for found in sets:
            texts = found.passages
            for number in np.unique(np.linspace(0, len(texts) - 1, _SAMPLE).astype(np.int64)) if len(texts) else ():
                ids = texts[int(number)][:_SAMPLE_TOKENS]
                occurs[np.unique(ids)] += 1
                passages, tokens = passages + 1, tokens + len(ids)
        rarity = np.log1p((passages - occurs + 0.5) / (occurs + 0.5))
        return cls(torch.from_numpy(rarity).float().to(device), max(tokens / max(passages, 1), 1.0), width_max)

    def scores(self, queries: TextRows, passages: TextRows) -> Tensor:
        """Score every passage for every query: ``(q, m)`` float32 from 0 to 1, the most that a passage could have.

        Rows are as the teacher reads them: a special token before and after each text.
        """
        asked = self._counts(queries) > 0  # (q, vocabulary)
        counts = self._counts(passages)  # (m, vocabulary)
        lengths = counts.sum(1, keepdim=True) / self._average_length
        saturated = counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths))
        most = (K1 + 1) * (asked * self._rarity).sum(1, keepdim=True)  # (q, 1)
        return ((asked * self._rarity) @ saturated.T) / most.clamp_min(1e-6)

    def _counts(self, texts: TextRows) -> Tensor:
        places = torch.arange(texts.tokens.shape[1], device=texts.tokens.device)
        inside = (places > 0) & (places < texts.ends[:, None])
        counts = torch.zeros(len(texts.tokens), len(self._rarity), device=texts.tokens.device)
        return counts.scatter_add_(1, texts.tokens.long(), inside.float())
