"""Token ids as rows that models read: special tokens set, widths the same over many batches. Runs beside the loop.

A device likes shapes that it has seen, so widths are multiples of 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from encoder.errors import CheckpointError
from encoder.model_config import ModelConfig
from encoder.tokenizer import Tokenizer

WIDTH_MULTIPLE = 16
Ids = NDArray[np.integer]


class TextRows(NamedTuple):
    """Texts as rows, padded on the right."""

    tokens: Tensor  # (b, l) int32
    ends: Tensor  # (b,) int64 place of each row's last token


@dataclass(frozen=True, slots=True)
class RowRules:
    """What a model sets before and after texts."""

    query_start: tuple[int, ...]
    passage_start: tuple[int, ...]
    end: int | None

    @classmethod
    def of(cls, query: ModelConfig, passage: ModelConfig, folder: Path) -> RowRules:
        """Read them out of configurations; :class:`CheckpointError` where the tokenizer lacks a special token."""
        tokenizer = Tokenizer.load(folder)
        if tokenizer.vocabulary_size > min(query.vocabulary_size, passage.vocabulary_size):
            raise CheckpointError(
                f"{folder}: the tokenizer has {tokenizer.vocabulary_size} tokens and the model's vocabulary_size is "
                f"{query.vocabulary_size}; give the model's own tokenizer."
            )

        def special(key: str, token: str | None) -> tuple[int, ...]:
            if token is None:
                return ()
            number = tokenizer.token_id(token)
            if number is None:
                raise CheckpointError(f"{folder}: the tokenizer has no {token!r}, which the model's {key} names.")
            return (number,)

        bos, eos = special("bos_token", query.bos_token), special("eos_token", query.eos_token)
        return cls(
            query_start=(*bos, *tokenizer.encode(query.query_prompt)),
            passage_start=(*bos, *tokenizer.encode(passage.passage_prompt)),
            end=eos[0] if eos else None,
        )


def wrap(tokens: Ids, lengths: NDArray[np.int64], start: Sequence[int], end: int | None) -> TextRows:
    """Set special tokens round texts, ``tokens (b, l)`` of which ``lengths (b,)`` count, in rows of a common width."""
    lengths = np.asarray(lengths, np.int64)
    width = tokens.shape[1] + len(start) + (end is not None)
    rows = np.zeros((len(tokens), width + -width % WIDTH_MULTIPLE), np.int32)
    rows[:, : len(start)] = start
    read = np.arange(tokens.shape[1]) < lengths[:, None]
    rows[:, len(start) : len(start) + tokens.shape[1]] = np.where(read, tokens, 0)
    ends = lengths + len(start) - 1
    if end is not None:
        ends = ends + 1
        rows[np.arange(len(rows)), ends] = end
    return TextRows(torch.from_numpy(rows), torch.from_numpy(ends))


def fill_up(texts: TextRows, count: int) -> TextRows:
    """Add empty rows until there are ``count``, where that keeps a compiled model from meeting a new shape."""
    missing = max(0, count - len(texts.tokens))
    return TextRows(F.pad(texts.tokens, (0, 0, 0, missing)), F.pad(texts.ends, (0, missing)))
