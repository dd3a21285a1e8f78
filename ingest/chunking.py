"""Documents into chunks: about a paragraph each, cut where the text itself pauses. Knows no encoder, no index.

A document is tokenized once, and cut by the rules of ``encoder.chunk_cuts``, which training follows, too. Of source
code, ``structure`` says where it pauses. A chunk knows its lines, and the headings or definitions that it stands under.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encoder.boundaries import LEVEL_NONE, LEVEL_SENTENCE, boundary_levels
from encoder.chunk_cuts import CHARS_PER_TOKEN_MAX, TOKENS_MAX_DEFAULT, chunk_starts
from encoder.errors import InvalidInput
from encoder.passage_text import TITLE_TOKENS_MAX, join_passage, passage_title
from encoder.tokenizer import Tokenizer
from ingest.documents import Document
from ingest.structure.code_parser import CodeParser
from ingest.structure.headings import heading_paths
from ingest.structure.source_code import read_source

CHUNKER_VERSION = 2
CODE_VERSION = 1  # of the rules for source code alone
TOKENS_MAX_LEAST = 16
HEADED_LANGUAGES = ("", "markdown", "text")  # in other ones, a line that begins with `#` is mostly a comment
WINDOW_CHARS = 1 << 18  # a document is tokenized in windows of this size: memory stays bounded
UNREAD_CHARS_MAX = 64  # longest run that the tokenizer drops (control characters) and a chunk still carries at its edge

_NOT_BLANK = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A slice of a document: ``text == document.text[char_start:char_end]``, without white space at its ends."""

    chunk_index: int
    char_start: int  # code points, from 0
    char_end: int  # exclusive
    token_count: int  # of the document's own tokens; neither title nor end-of-sequence
    text: str
    line_start: int = 1  # from 1; a line ends with a line feed
    line_end: int = 1  # inclusive
    # Markdown's headings, or the names of a source's definitions, outermost first, that the chunk's own text stands
    # under or begins with; its own text begins after what it repeats of the chunk before.
    headings: tuple[str, ...] = ()


class Chunker:
    """Cuts documents into chunks of at most ``tokens_max`` tokens (and 16 code points per token).

    A chunk has at least a quarter of ``tokens_max``, unless its document is shorter, a run without tokens (blanks,
    a word of thousands of letters) fills it, or a line of source code would be divided. Safe in many threads.
    """

    def __init__(self, tokenizer: Tokenizer, tokens_max: int = TOKENS_MAX_DEFAULT, overlap_tokens: int = 0) -> None:
        """Let a chunk repeat up to ``overlap_tokens`` of the chunk before it, as part of its ``tokens_max``.

        :class:`InvalidInput` where ``tokens_max`` is too small, or the overlap more than half of it.
        """
        if tokens_max < TOKENS_MAX_LEAST:
            raise InvalidInput("tokens_max", f"tokens_max is {tokens_max}; at least {TOKENS_MAX_LEAST} is needed.")
        overlap_tokens_max = min(tokens_max // 2, tokens_max - TOKENS_MAX_LEAST)
        if not 0 <= overlap_tokens <= overlap_tokens_max:
            raise InvalidInput(
                "overlap_tokens",
                f"overlap_tokens is {overlap_tokens}; with chunks of {tokens_max} tokens, 0 to {overlap_tokens_max} "
                "are possible.",
            )
        self._tokenizer = tokenizer
        self._code_parser = CodeParser()
        self.tokens_max = tokens_max
        self.overlap_tokens = overlap_tokens

    @property
    def fingerprint(self) -> str:
        """What decides where chunks end and what a passage is, readable; the tokenizer is in the model's own."""
        overlap = f"-overlap{self.overlap_tokens}" if self.overlap_tokens else ""
        return f"v{CHUNKER_VERSION}-code{CODE_VERSION}-tokens{self.tokens_max}{overlap}-title{TITLE_TOKENS_MAX}"

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

    def chunk(self, document: Document, language: str = "", *, begin: int = 0) -> list[Chunk]:
        """Cut a document's text into chunks, in order; ``language`` is that of source code, "python" for one.

        Only what follows the first ``begin`` code points is cut (as if it were all, and possibly into nothing), but
        with its place, lines and headings in the whole. Chunks are numbered from 0.

        Source code is cut at its definitions and statements, and never within a line that is not over the limit alone.
        It is cut as plain text where its language is not known here, its grammar is not installed (the extra ``code``),
        it has over 2 MiB, or parsing it takes too much.

        Together the chunks hold all that is not white space, except runs of more than 64 characters that the tokenizer
        drops (control characters). :class:`InvalidInput` names ``text`` where the tokenizer reads nothing at all.
        """
        text = document.text[begin:]
        tokens_max = self.tokens_max - self.overlap_tokens
        starts, ends = self._tokenize(text, tokens_max * CHARS_PER_TOKEN_MAX)
        if not len(starts):
            if begin:
                return []
            raise InvalidInput(
                "text", "text holds nothing that the tokenizer can read; there is nothing to find in it."
            )
        code = read_source(self._code_parser, text, language, starts, ends, tokens_max) if language else None
        levels = code.levels if code else boundary_levels(text, starts, ends)
        cuts = [*chunk_starts(text, starts, ends, tokens_max, levels), len(starts)]
        if code:
            paths = code.paths(cuts[:-1])
        elif language.strip().lower() in HEADED_LANGUAGES:
            places = [begin + _skip_blanks(text, int(starts[cut])) for cut in cuts[:-1]]
            paths = heading_paths(document.text, pairwise([*places, len(document.text)]))
        else:
            paths = [()] * (len(cuts) - 1)
        firsts = self._with_overlap(cuts, levels, starts, ends)
        chunks: list[Chunk] = []
        line, counted = 1 + document.text.count("\n", 0, begin), 0  # the line that the code point of this number is in
        for first, last, path in zip(firsts, cuts[1:], paths, strict=True):
            lower = int(starts[first]) if first or starts[0] > UNREAD_CHARS_MAX else 0
            upper = int(starts[last]) if last < len(starts) else len(text)
            start, end = _trim(text, lower, int(ends[last - 1]), upper)
            if start < end:
                line, counted = line + text.count("\n", counted, start), start
                line_end = line + text.count("\n", start, end)
                place = begin + start, begin + end
                chunks.append(Chunk(len(chunks), *place, last - first, text[start:end], line, line_end, path))
        return chunks

    def _with_overlap(
        self, cuts: Sequence[int], levels: NDArray[np.int8], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> list[int]:
        """Move the first token of each chunk back into the one before, to where a sentence, a line or a word begins."""
        firsts = list(cuts[:-1])
        if not self.overlap_tokens:
            return firsts
        for number in range(1, len(firsts)):
            begin, last = cuts[number], cuts[number + 1]
            by_chars = int(np.searchsorted(starts, ends[last - 1] - self.tokens_max * CHARS_PER_TOKEN_MAX))
            earliest = max(begin - self.overlap_tokens, cuts[number - 1] + 1, by_chars)
            # A paragraph is no better to begin with than a sentence: the earliest of the best gives most context.
            kinds = np.minimum(levels[earliest:begin], LEVEL_SENTENCE)
            if len(kinds) and kinds.max() >= LEVEL_NONE:
                firsts[number] = earliest + int(kinds.argmax())
        return firsts

    def _tokenize(self, text: str, chars_max: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give each token's start and end (both ``(l,)``, code points); tokens over the limit of characters are cut."""
        found = []
        for start, end in _windows(text):
            offsets = self._tokenizer.encode_with_offsets(text[start:end]).offsets
            found.append(offsets + start)
        offsets = np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)
        starts, ends = np.ascontiguousarray(offsets.T)
        return _cut_long_tokens(starts, ends, chars_max)


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


def _skip_blanks(text: str, position: int) -> int:
    """Move to the first character that is not white space: a token may begin with the blanks before it."""
    found = _NOT_BLANK.search(text, position)
    return found.start() if found else len(text)


def _trim(text: str, lower: int, token_end: int, upper: int) -> tuple[int, int]:
    """Take what the tokenizer dropped after the last token (accents, control characters), but never blanks."""
    if len(text[token_end:upper].rstrip()) > UNREAD_CHARS_MAX:
        upper = token_end
    end = lower + len(text[lower:upper].rstrip())
    return end - len(text[lower:end].lstrip()), end
