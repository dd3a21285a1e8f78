"""Text to token ids and back, without torch: the chunker and the search service need it too. Knows no model.

Special tokens are never read out of text: a user's literal ``[SEP]`` is four ordinary tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from encoder.errors import CheckpointError, InvalidInput
from encoder.hub import local_folder
from encoder.layouts.opening import TOKENIZER_FILE as TOKENIZER_FILE
from encoder.layouts.opening import find_tokenizer
from encoder.word_table import WordTable, divides_into_words

_IN_BRACKETS = re.compile(r"[\[<].+[\]>]$")


def check_characters(field: str, text: str) -> None:
    """Refuse what no UTF-8 can hold: half of a surrogate pair, as which Python also hands on bytes it cannot read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            field, f"{field} is not whole Unicode text (at character {error.start}); write it in UTF-8."
        ) from None


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """Token ids of a text and the slice of the text that each came from."""

    ids: NDArray[np.int64]  # (l,)
    offsets: NDArray[np.int64]  # (l, 2): start and end (exclusive), in code points


class Tokenizer:
    """A ``tokenizers`` pipeline read from a model folder; adds no special tokens of its own."""

    def __init__(self, pipeline: tokenizers.Tokenizer, fingerprint: str) -> None:
        pipeline.no_padding()
        pipeline.no_truncation()
        pipeline.encode_special_tokens = True
        self._pipeline = pipeline
        self._words = WordTable(pipeline) if divides_into_words(pipeline) else None
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, source: Path) -> Tokenizer:
        """Read ``tokenizer.json`` of a model: a folder of any layout, or a hub id.

        :class:`CheckpointError` where it is missing or broken.
        """
        folder = local_folder(source)
        path = find_tokenizer(folder)
        if path is None:
            raise CheckpointError(
                f"{folder / TOKENIZER_FILE} cannot be read (No such file or directory); give a whole model folder, or "
                "write one with `mamba-search convert MODEL FOLDER --tokenizer FILE`."
            )
        return cls.load_file(path)

    @classmethod
    def load_file(cls, path: Path) -> Tokenizer:
        """Read a ``tokenizer.json``; :class:`CheckpointError` where it cannot be read."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a whole model folder.") from error
        try:
            pipeline = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:
            raise CheckpointError(f"{path} is not a tokenizer: {error}.") from error
        return cls(pipeline, hashlib.sha256(data).hexdigest()[:16])

    @cached_property  # to list a vocabulary takes longer than to embed a query
    def vocabulary_size(self) -> int:
        """Number of ids, special tokens included: one more than the highest, as some vocabularies have gaps."""
        return max(self._pipeline.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def ordinary_ids(self) -> list[int]:
        """List the tokens that texts are made of: no special ones, and none in brackets, as BERT's ``[unused0]``."""
        special = {number for number, token in self._pipeline.get_added_tokens_decoder().items() if token.special}
        vocabulary = self._pipeline.get_vocab(with_added_tokens=False).items()
        return sorted(number for token, number in vocabulary if number not in special and not _IN_BRACKETS.match(token))

    def token_id(self, token: str) -> int | None:
        """Look up one token, special or not."""
        return self._pipeline.token_to_id(token)

    def encode(self, text: str) -> list[int]:
        """Tokenize one text."""
        if self._words:
            ids: list[int] = self._words.tokenize(text)[0].tolist()
            return ids
        return self._pipeline.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Tokenize many texts: the ids ``(l,)`` of each."""
        ids, ends = self.encode_joined(texts)
        bounds = [0, *ends.tolist()]
        return [ids[begin:end] for begin, end in pairwise(bounds)]

    def encode_joined(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokenize many texts: all ids end to end, ``(l,)``, and where each text's end, ``(n,)``."""
        if self._words:
            return self._words.tokenize_batch(texts)
        # The library gives lists only; it tokenizes on all cores, without the interpreter's lock.
        found = self._pipeline.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [np.array(encoding.ids, dtype=np.int32) for encoding in found]
        nothing = np.empty(0, dtype=np.int32)
        return np.concatenate([nothing, *rows]), np.cumsum([len(row) for row in rows], dtype=np.int64)

    def encode_with_offsets(self, text: str) -> TokenizedText:
        """Tokenize one text and say where each token came from."""
        if self._words:
            return TokenizedText(*self._words.tokenize(text))
        found = self._pipeline.encode(text, add_special_tokens=False)
        return TokenizedText(
            ids=np.array(found.ids, dtype=np.int64),
            offsets=np.array(found.offsets, dtype=np.int64).reshape(-1, 2),
        )

    def count(self, text: str) -> int:
        """Count a text's tokens."""
        return len(self.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids back into text (as far as the vocabulary keeps it)."""
        return self._pipeline.decode(list(ids), skip_special_tokens=False)
