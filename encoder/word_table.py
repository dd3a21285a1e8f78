"""Words that have been tokenized before, so that a text is read by looking its words up. Knows no model.

BERT's pipelines (of Hugging Face's ``tokenizers``) divide a text at blanks and signs, and make of each word what they
would make of it alone. So a word is tokenized once, by the library, and a text is put together from a table: the same
tokens and the same offsets, in a sixth of the time; of many texts without a Python object for each word
(:mod:`encoder.word_index`), in a thirtieth. Other pipelines (byte-level ones) join words and blanks: they have no
table.
"""

from __future__ import annotations

import re
import string
import threading
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import numpy as np
import tokenizers
from numpy.typing import NDArray

from encoder.word_index import UNKNOWN, WordIndex, Words, divide, keys_of

# The table is begun anew when its words have so many characters together: some 20 MB.
TABLE_CHARS_MAX = 1 << 19
# A query is looked up word by word sooner than numpy has begun.
CHARS_BY_INDEX_MIN = 256

_Number = TypeVar("_Number", np.int32, np.int64)

_SIGNS = re.escape(string.punctuation)
_WORDS = re.compile(rf"[{_SIGNS}]|[^ \t\n\r{_SIGNS}]+")  # a sign is a word of its own
_BLANK, _SIGN, _LETTER = 0, 1, 2
_BEYOND_ASCII = 128
# The kind of each code point; what is beyond ASCII never divides here, but inside a word, by the library.
_KINDS = np.array(
    [
        _BLANK if chr(code) in " \t\n\r" else _SIGN if chr(code) in string.punctuation else _LETTER
        for code in range(_BEYOND_ASCII + 1)
    ],
    dtype=np.uint8,
)


def divides_into_words(pipeline: tokenizers.Tokenizer) -> bool:
    """Say whether a pipeline tokenizes each word as it would alone."""
    return (
        isinstance(pipeline.normalizer, tokenizers.normalizers.BertNormalizer)
        and isinstance(pipeline.pre_tokenizer, tokenizers.pre_tokenizers.BertPreTokenizer)
        and isinstance(pipeline.model, tokenizers.models.WordPiece)
        and all(token.special for token in pipeline.get_added_tokens_decoder().values())
    )


class WordTable:
    """Tokenizes by looking words up; safe in many threads. Special tokens are never read out of text."""

    def __init__(
        self,
        pipeline: tokenizers.Tokenizer,
        chars_max: int = TABLE_CHARS_MAX,
        by_index_min: int = CHARS_BY_INDEX_MIN,
    ) -> None:
        """``pipeline`` must be one that :func:`divides_into_words`, and read special tokens as ordinary text.

        Texts of ``by_index_min`` characters together are divided and looked up in numpy.
        """
        self._pipeline = pipeline
        self._chars_max = chars_max
        self._by_index_min = by_index_min
        self._rows = _Rows()
        self._adding = threading.Lock()

    def __reduce__(self) -> tuple[type[Self], tuple[tokenizers.Tokenizer, int, int]]:
        """Travel to another process without the words."""
        return type(self), (self._pipeline, self._chars_max, self._by_index_min)

    def tokenize(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give token ids ``(l,)``, and each token's start and end (exclusive) in code points, ``(l, 2)``."""
        words, word_starts = _divide(text)
        rows, numbers = self._look_up(words)
        counts, places = rows.pieces(numbers)
        offsets = rows.offsets[places] + np.repeat(word_starts, counts)[:, None]
        return rows.ids[places].astype(np.int64), offsets

    def tokenize_batch(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Give the token ids of many texts end to end, ``(l,)``, and where each text's end, ``(n,)``.

        The texts are read as one, each on a line of its own.
        """
        if sum(map(len, texts)) < self._by_index_min:
            found, begins = _divide("\n".join(texts))
            rows, numbers = self._look_up(found)
            line_ends = np.cumsum([len(text) + 1 for text in texts])
        else:
            lines = [text.encode() for text in texts]
            data = b"\n".join(lines)
            words = divide(data)
            rows, numbers = self._look_up_bytes(data, words)
            begins, line_ends = words.begins, np.cumsum([len(line) + 1 for line in lines])
        counts, places = rows.pieces(numbers)
        tokens_before = np.concatenate([[0], np.cumsum(counts)])
        return rows.ids[places], tokens_before[np.searchsorted(begins, line_ends)]

    def _look_up(self, words: Sequence[str]) -> tuple[_Rows, NDArray[np.int64]]:
        rows = self._rows
        return rows, self._numbers(rows, words)

    def _look_up_bytes(self, data: bytes, words: Words) -> tuple[_Rows, NDArray[np.int64]]:
        rows, keys = self._rows, keys_of(data, words)
        numbers = rows.index.find(keys).astype(np.int64)
        unknown = np.flatnonzero(numbers == UNKNOWN)
        if unknown.size:
            slices = zip(words.begins[unknown].tolist(), words.ends[unknown].tolist(), strict=True)
            numbers[unknown] = self._numbers(rows, [data[begin:end].decode() for begin, end in slices])
            fitting = unknown[keys.second[unknown] != 0]
            if fitting.size:
                with self._adding:
                    rows.index = rows.index.with_words(keys.at(fitting), numbers[fitting])
        return rows, numbers

    def _numbers(self, rows: _Rows, words: Sequence[str]) -> NDArray[np.int64]:
        """Give words' numbers; those that are not known are tokenized."""
        numbers = list(map(rows.numbers.get, words))
        if None in numbers:
            with self._adding:
                missing = [word for word in dict.fromkeys(words) if word not in rows.numbers]
                rows.add(missing, [self._pipeline.encode(word, add_special_tokens=False) for word in missing])
                if rows.chars > self._chars_max and rows is self._rows:
                    self._rows = _Rows()
            numbers = list(map(rows.numbers.get, words))
        return np.array(numbers, dtype=np.int64)


class _Rows:
    """The words known, and the pieces of all of them end to end. What is there once never changes."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.index = WordIndex.empty()  # of those that came among many
        self.chars = 0
        self._pieces = 0
        # All with room for more at their ends.
        self.ids = np.empty(0, dtype=np.int32)  # (pieces,)
        self.offsets = np.empty((0, 2), dtype=np.int32)  # (pieces, 2): in the word, in code points
        self._ends = np.zeros(1, dtype=np.int64)  # (words + 1,): where each word's pieces end; first a zero

    def add(self, words: Sequence[str], encodings: Sequence[tokenizers.Encoding]) -> None:
        """Add words, of which none is known; whoever finds a word by its number finds its pieces."""
        ids = [number for encoding in encodings for number in encoding.ids]
        offsets = [pair for encoding in encodings for pair in encoding.offsets]
        ends = self._pieces + np.cumsum([len(encoding.ids) for encoding in encodings])
        first = len(self.numbers)
        self.ids = _written(self.ids, self._pieces, np.array(ids))
        self.offsets = _written(self.offsets, self._pieces, np.array(offsets).reshape(-1, 2))
        self._ends = _written(self._ends, first + 1, ends)
        self._pieces += len(ids)
        self.chars += sum(map(len, words))
        self.numbers |= {word: first + place for place, word in enumerate(words)}

    def pieces(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give how many pieces each word has, ``(words,)``, and the places of all of them, ``(l,)``."""
        ends = self._ends
        begins = ends[numbers]
        counts = ends[numbers + 1] - begins
        after = np.cumsum(counts)
        total = int(after[-1]) if len(after) else 0
        return counts, np.repeat(begins - (after - counts), counts) + np.arange(total)


def _written(array: NDArray[_Number], place: int, new: NDArray[Any]) -> NDArray[_Number]:
    """Write rows from a place on, into a larger copy where there is no room."""
    end = place + len(new)
    if end > len(array):
        larger = np.empty((max(end, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
        larger[:place] = array[:place]
        array = larger
    array[place:end] = new
    return array


def _divide(text: str) -> tuple[list[str], NDArray[np.int64]]:
    """Divide a text into words, and say where each begins: ``(words,)``, in code points."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    kinds = _KINDS[np.minimum(codes, _BEYOND_ASCII)]
    begins = kinds != _BLANK
    begins[1:] &= (kinds[1:] == _SIGN) | (kinds[:-1] != _LETTER)
    return _WORDS.findall(text), np.flatnonzero(begins)
