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
    """Texts as rows, padded on the right; or packed, several in a row; or a piece of documents of several chunks."""

    tokens: Tensor  # (b, l) int32
    ends: (
        Tensor  # int64: (b,) place of each row's last token; or (n, 2) row and place of each text or chunk's, in order
    )
    sequences: Tensor | None = None  # packed: (b, l) int32, another number for each text of a row, 0 for padding

    def count_tokens(self) -> int:
        """Count the tokens that are read, special ones included."""
        if self.sequences is not None:
            return int((self.sequences > 0).sum())
        return int(self.ends.sum()) + len(self.ends)


@dataclass(frozen=True, slots=True)
class RowRules:
    """What a model sets before and after texts."""

    query_start: tuple[int, ...]
    passage_start: tuple[int, ...]
    end: int | None

    @classmethod
    def of(cls, query: ModelConfig, passage: ModelConfig, folder: Path) -> RowRules:
        """Read them out of the configurations of both models, whose tokenizer is in ``folder``.

        :class:`CheckpointError` where the tokenizer lacks a special token, or the models set different ones.
        """
        ours, theirs = ((model.bos_token, model.eos_token) for model in (query, passage))
        if ours != theirs:
            raise CheckpointError(
                f"{query.name} begins and ends texts with {ours}, {passage.name} with {theirs}; give models with the "
                "same bos_token and eos_token."
            )
        tokenizer = Tokenizer.load(folder)
        if tokenizer.vocabulary_size > min(query.vocabulary_size, passage.vocabulary_size):
            raise CheckpointError(
                f"{folder}: the tokenizer has {tokenizer.vocabulary_size} tokens and the model's vocabulary_size is "
                f"{min(query.vocabulary_size, passage.vocabulary_size)}; give the model's own tokenizer."
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


def padded(texts: Sequence[Ids | Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lay texts into one array, ``(b, l)`` filled up with 0 behind each text's ``(b,)`` tokens."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    tokens = np.zeros((len(texts), int(lengths.max(initial=1))), np.int64)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    return tokens, lengths


def pack(tokens: Ids, lengths: NDArray[np.int64], start: Sequence[int], end: int | None, width: int) -> TextRows:
    """Set special tokens round texts as :func:`wrap` does, and lay them into rows of ``width``, as many as each holds.

    Texts keep their order. No text may be longer than a row.
    """
    texts = wrap(tokens, lengths, start, end)
    counts = texts.ends.numpy() + 1
    found = _side_by_side(texts.tokens.numpy(), counts, width)
    return found.rows._replace(ends=torch.from_numpy(np.stack([found.row, found.begin + counts - 1], axis=1)))


def fold(documents: Ids, lengths: NDArray[np.int64], places: NDArray[np.int64], width: int) -> TextRows:
    """Lay documents ``(b, l)`` with their special tokens into rows likewise; of them ``places (n, 2)`` are asked for.

    A place is a document and a column of it.
    """
    found = _side_by_side(documents, lengths, width)
    owners, columns = places[:, 0], places[:, 1]
    ends = np.stack([found.row[owners], found.begin[owners] + columns], axis=1)
    return found.rows._replace(ends=torch.from_numpy(ends))


class _SideBySide(NamedTuple):
    rows: TextRows  # whose ends are not yet known
    row: NDArray[np.int64]  # (b,) of each text
    begin: NDArray[np.int64]  # (b,) its first column


def _side_by_side(tokens: Ids, counts: NDArray[np.int64], width: int) -> _SideBySide:
    """Lay the first ``counts (b,)`` tokens of texts ``(b, l)`` end to end into as few rows as keep their order."""
    row, begin = _next_fit(counts, width)
    columns = np.arange(tokens.shape[1])
    inside = columns < counts[:, None]
    places = (row * width + begin)[:, None] + columns
    count = int(row.max(initial=0)) + 1
    laid_out, sequences = np.zeros(count * width, np.int32), np.zeros(count * width, np.int32)
    laid_out[places[inside]] = tokens[inside]
    sequences[places[inside]] = np.repeat(np.arange(1, len(counts) + 1), counts)
    shape = (count, width)
    empty = torch.empty(0, 2, dtype=torch.int64)
    rows = TextRows(torch.from_numpy(laid_out.reshape(shape)), empty, torch.from_numpy(sequences.reshape(shape)))
    return _SideBySide(rows, row, begin)


def _next_fit(counts: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each text's row and first column; a text that does not fit the row any more begins the next one."""
    rows, begins = np.empty_like(counts), np.empty_like(counts)
    row = used = 0
    for number, count in enumerate(counts.tolist()):
        if used + count > width:
            row, used = row + 1, 0
        rows[number], begins[number] = row, used
        used += count
    return rows, begins


def fill_up(texts: TextRows, count: int) -> TextRows:
    """Add empty rows until there are ``count``: a compiled model shall not meet a new shape. Packed ones have one."""
    if texts.sequences is not None:
        return texts
    missing = max(0, count - len(texts.tokens))
    return TextRows(F.pad(texts.tokens, (0, 0, 0, missing)), F.pad(texts.ends, (0, missing)))
