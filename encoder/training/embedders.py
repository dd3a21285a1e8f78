"""A model folder, or a teacher, as mining asks for embeddings: token ids in. Texts too long are cut at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.errors import CheckpointError
from encoder.text_encoder import BATCH_SIZE_MAX, TextEncoder
from encoder.tokenizer import Tokenizer
from encoder.training.nearest import Ids
from encoder.training.rows import TextRows
from encoder.training.teacher import Teacher, TeacherRules

Item = TypeVar("Item")

_SPARE_TOKENS = 8  # special ones, and what reading a text again may add
_TEACHER_BATCH = 512


class ModelEmbedder:
    """The encoder itself."""

    def __init__(self, encoder: TextEncoder, tokens_max: int) -> None:
        """Read at most ``tokens_max`` tokens of a text."""
        self._encoder = encoder
        config, info = encoder.model.config, encoder.info
        prompts = [encoder.tokenizer.count(prompt) for prompt in (config.query_prompt, config.passage_prompt)]
        self._query_tokens_max = min(tokens_max, info.query_tokens_max - prompts[0] - _SPARE_TOKENS)
        self._passage_tokens_max = min(tokens_max, info.passage_tokens_max - prompts[1] - _SPARE_TOKENS)
        self.dimension = info.dimension

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer, tokens_max: int, device: str = "auto") -> ModelEmbedder:
        """Load a model folder; :class:`CheckpointError` where its tokenizer is not the one of the training set."""
        encoder = TextEncoder.load(folder, device=device)
        if encoder.tokenizer.fingerprint != tokenizer.fingerprint:
            raise CheckpointError(f"{folder} has another tokenizer than the training set; mine with its own model.")
        return cls(encoder, tokens_max)

    def embed_queries(self, queries: Sequence[Ids]) -> NDArray[np.float32]:
        """Embed queries, from the text that their ids spell."""
        decode, limit = self._encoder.tokenizer.decode, self._query_tokens_max
        parts = [
            self._encoder.encode_queries([decode(ids[:limit].tolist()) for ids in batch]).embeddings
            for batch in _batches(queries, BATCH_SIZE_MAX)
        ]
        return np.concatenate(parts)

    def embed_passages(self, passages: Sequence[Ids]) -> NDArray[np.float32]:
        """Embed passages."""
        limit = self._passage_tokens_max
        parts = [
            self._encoder.encode_tokenized_passages([ids[:limit].tolist() for ids in batch]).embeddings
            for batch in _batches(passages, BATCH_SIZE_MAX)
        ]
        return np.concatenate(parts)


class TeacherEmbedder:
    """A teacher, which reads queries and passages alike."""

    def __init__(self, teacher: Teacher, rules: TeacherRules, device: torch.device) -> None:
        self._teacher, self._rules, self._device = teacher, rules, device
        self.dimension = teacher.dimension

    def embed_queries(self, queries: Sequence[Ids]) -> NDArray[np.float32]:
        """Embed queries."""
        return self._embed(queries)

    def embed_passages(self, passages: Sequence[Ids]) -> NDArray[np.float32]:
        """Embed passages."""
        return self._embed(passages)

    def _embed(self, texts: Sequence[Ids]) -> NDArray[np.float32]:
        found = np.empty((len(texts), self.dimension), dtype=np.float32)
        limit = self._rules.tokens_max
        # By length, so that little is padding.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        for numbers in _batches(order, _TEACHER_BATCH):
            rows = [texts[number][:limit] for number in numbers]
            lengths = np.array([len(row) for row in rows], dtype=np.int64)
            tokens = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
            for row, ids in zip(tokens, rows, strict=True):
                row[: len(ids)] = ids
            ready = self._rules.ready(tokens, lengths)
            if isinstance(ready, TextRows):
                ready = TextRows(ready.tokens.to(self._device), ready.ends.to(self._device))
            found[list(numbers)] = self._teacher.embed(ready).cpu().numpy()
        return found


def _batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
