"""A model folder, or a teacher, as mining asks for embeddings: token ids in. Texts too long are cut at their ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.checkpoint import load_opened
from encoder.errors import CheckpointError
from encoder.kernels.choosing import prepare
from encoder.layouts.opening import open_model
from encoder.model import EncoderModel
from encoder.text_encoder import preferred_dtype
from encoder.tokenizer import Tokenizer
from encoder.training.rows import Ids, RowRules, TextRows, padded, wrap
from encoder.training.teacher import Teacher
from encoder.training.teacher_rules import Reading, TeacherRules

_BATCH_TOKENS = 65_536


class ModelEmbedder:
    """The encoder itself, from rows of token ids."""

    def __init__(self, model: EncoderModel, rules: RowRules, tokens_max: int, device: torch.device) -> None:
        """Read at most ``tokens_max`` tokens of a text."""
        self._model, self._rules, self._tokens_max, self._device = model, rules, tokens_max, device
        self._dtype = preferred_dtype(device)
        if device.type == "cpu":
            prepare(model, self._dtype)
        self.dimension = model.config.embedding_dim

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer, tokens_max: int, device: torch.device) -> ModelEmbedder:
        """Load a model folder; :class:`CheckpointError` where its tokenizer is not the one of the training set."""
        found = open_model(folder)
        file = found.tokenizer_file
        if file is None or Tokenizer.load(file.parent).fingerprint != tokenizer.fingerprint:
            raise CheckpointError(f"{folder} has another tokenizer than the training set; mine with its own model.")
        rules = RowRules.of(found.config, found.config, file.parent)
        return cls(load_opened(found, device), rules, tokens_max, device)

    def embed_queries(self, queries: Sequence[Ids]) -> NDArray[np.float32]:
        """Embed queries."""
        return self._embed(queries, self._rules.query_start)

    def embed_passages(self, passages: Sequence[Ids]) -> NDArray[np.float32]:
        """Embed passages."""
        return self._embed(passages, self._rules.passage_start)

    @torch.inference_mode()
    def _embed(self, texts: Sequence[Ids], start: tuple[int, ...]) -> NDArray[np.float32]:
        def embed(tokens: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
            rows = wrap(tokens, lengths, start, self._rules.end)
            found: Tensor = self._model(rows.tokens.to(self._device), rows.ends.to(self._device), self._dtype)
            return found

        return _embed_by_length(texts, self._tokens_max, self.dimension, embed)


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
        def embed(tokens: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
            ready = self._rules.ready(tokens, lengths)
            return self._teacher.embed([self._placed(part) for part in ready])

        return _embed_by_length(texts, self._rules.tokens_max, self._teacher.dimension, embed)

    def _placed(self, part: Reading) -> Reading:
        if isinstance(part, list):
            return part
        return TextRows(part.tokens.to(self._device), part.ends.to(self._device))


def _embed_by_length(
    texts: Sequence[Ids],
    tokens_max: int,
    dimension: int,
    embed: Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor],
) -> NDArray[np.float32]:
    """Embed texts cut at ``tokens_max``, those of like length together, so that little is padding."""
    found = np.empty((len(texts), dimension), dtype=np.float32)
    lengths = np.array([min(len(text), tokens_max) for text in texts], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        # As many rows as fit, were all as long as the last of them.
        fits = lengths[order[first:]] * np.arange(1, len(order) - first + 1) <= _BATCH_TOKENS
        numbers = order[first : first + max(1, int(fits.sum()))]
        first += len(numbers)
        found[numbers] = embed(*padded([texts[number][:tokens_max] for number in numbers])).cpu().numpy()
    return found
