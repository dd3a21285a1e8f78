"""Documents into chunks: about a paragraph each, cut where the text itself pauses. Knows no encoder, no index.

A document is tokenized once, and cut by the rules of ``encoder.chunk_cuts``, which training follows, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encoder.chunk_cuts import CHARS_PER_TOKEN_MAX, TOKENS_MAX_DEFAULT, chunk_starts
from encoder.errors import InvalidInput
from encoder.passage_text import TITLE_TOKENS_MAX, join_passage, passage_title
from encoder.tokenizer import Tokenizer
from ingest.documents import Document

CHUNKER_VERSION = 2
TOKENS_MAX_LEAST = 16
WINDOW_CHARS = 1 << 18  # a document is tokenized in windows of this size: memory stays bounded
UNREAD_CHARS_MAX = 64  # longest run that the tokenizer drops (control characters) and a chunk still carries at its edge


@dataclass(frozen=True, slots=True)
class Chunk:
    """A slice of a document: ``text == document.text[char_start:char_end]``, without white space at its ends."""

    chunk_index: int
    char_start: int  # code points, from 0
    char_end: int  # exclusive
    token_count: int  # of the document's own tokens; neither title nor end-of-sequence
    text: str
    line_start: int = 1
    line_end: int = 1
    headings: tuple[str, ...] = ()


class Chunker:
    """Cuts documents into chunks of at most ``tokens_max`` tokens (and 16 code points per token).

    A chunk has at least a quarter of ``tokens_max``, unless its document is shorter or a run without tokens (blanks,
    a word of thousands of letters) fills it. Stateless after its making: safe in many threads.
    """

    def __init__(self, tokenizer: Tokenizer, tokens_max: int = TOKENS_MAX_DEFAULT) -> None:
        if tokens_max < TOKENS_MAX_LEAST:
            raise InvalidInput("tokens_max", f"tokens_max is {tokens_max}; at least {TOKENS_MAX_LEAST} is needed.")
        self._tokenizer = tokenizer
        self.tokens_max = tokens_max
        self.chars_max = tokens_max * CHARS_PER_TOKEN_MAX

    @property
    def fingerprint(self) -> str:
        """What decides where chunks end and what a passage is, readable; the tokenizer is in the model's own."""
        return f"v{CHUNKER_VERSION}-tokens{self.tokens_max}-title{TITLE_TOKENS_MAX}"

    @property
    def passage_tokens_max(self) -> int:
        """Most tokens of a passage: title, chunk, and one for the end-of-sequence token."""
        return self.tokens_max + TITLE_TOKENS_MAX + 1

    def passage(self, document: Document, chunk: Chunk) -> str:
        """Say what the encoder and BM25 read: the title (its first 64 tokens), a newline, the chunk's text."""
        return join_passage(self.passage_title(document.title), chunk.text)

    def passage_title(self, title: str) -> str:
        """Bring a title to one line and cut it after its first 64 tokens."""
        return passage_title(self._tokenizer, title)

    def chunk(self, document: Document) -> list[Chunk]:
        """Cut a document's text into chunks, in order, without overlap.

        Together they hold all that is not white space, except runs of more than 64 characters that the tokenizer
        drops (control characters). :class:`InvalidInput` names ``text`` where the tokenizer reads nothing at all.
        """
        text = document.text
        starts, ends = self._tokenize(text)
        if not len(starts):
            raise InvalidInput(
                "text", "text holds nothing that the tokenizer can read; there is nothing to find in it."
            )
        cuts = [*chunk_starts(text, starts, ends, self.tokens_max), len(starts)]
        chunks: list[Chunk] = []
        for first, last in pairwise(cuts):
            lower = int(starts[first]) if first or starts[0] > UNREAD_CHARS_MAX else 0
            upper = int(starts[last]) if last < len(starts) else len(text)
            start, end = _trim(text, lower, int(ends[last - 1]), upper)
            if start < end:
                chunks.append(Chunk(len(chunks), start, end, last - first, text[start:end]))
        return chunks

    def _tokenize(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give each token's start and end (both ``(l,)``, code points); tokens over the limit of characters are cut."""
        found = []
        for start, end in _windows(text):
            offsets = self._tokenizer.encode_with_offsets(text[start:end]).offsets
            found.append(offsets + start)
        offsets = np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)
        starts, ends = np.ascontiguousarray(offsets.T)
        return _cut_long_tokens(starts, ends, self.chars_max)


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Cut a text into windows at line ends, else at blanks, else anywhere: no word is split where it can be helped."""
    start = 0
    while start < len(text):
        end = start + WINDOW_CHARS
        if end < len(text):
            middle = start + WINDOW_CHARS // 2
            end = (text.rfind("\n", middle, end) + 1) or (text.rfind(" ", middle, end) + 1) or end
        yield start, min(end, len(text))
        start = end


def _cut_long_tokens(
    starts: NDArray[np.int64], ends: NDArray[np.int64], chars_max: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut tokens (the unknown token swallows words of any length) into pieces of at most ``chars_max``."""
    if not np.any(ends - starts > chars_max):
        return starts, ends
    pieces = [
        (piece, min(piece + chars_max, int(end)))
        for start, end in zip(starts, ends, strict=True)
        for piece in range(int(start), max(int(end), int(start) + 1), chars_max)
    ]
    cut = np.array(pieces, dtype=np.int64)
    return cut[:, 0], cut[:, 1]


def _trim(text: str, lower: int, token_end: int, upper: int) -> tuple[int, int]:
    """Take what the tokenizer dropped after the last token (accents, control characters), but never blanks."""
    if len(text[token_end:upper].rstrip()) > UNREAD_CHARS_MAX:
        upper = token_end
    end = lower + len(text[lower:upper].rstrip())
    return end - len(text[lower:end].lstrip()), end
