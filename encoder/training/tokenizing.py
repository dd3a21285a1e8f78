"""Texts to token ids in several processes, in order and without holding more than a few batches. Knows no files.

Documents also get their chunks: those that ingestion would cut.
"""

from __future__ import annotations

import functools
import multiprocessing
import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encoder.chunk_cuts import chunk_starts
from encoder.errors import MambaSearchError
from encoder.passage_text import join_passage, passage_title
from encoder.tokenizer import Tokenizer

_SENTENCE_END = re.compile(r"""[.?!:…。！？]["'”’)\]]*$""")
_WAITING_MAX = 4  # batches a process, under way or done and not yet taken


@dataclass(frozen=True, slots=True)
class Text:
    """What is to be tokenized."""

    text: str
    title: str = ""
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """Token ids of texts end to end, and where their chunks end, counted from each text's beginning."""

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]  # (texts,)
    chunk_ends: NDArray[np.int64] | None = None
    chunk_counts: NDArray[np.int64] | None = None  # (texts,)


def tokenize(texts: Sequence[Text], tokenizer: Tokenizer, chunk_tokens: int | None) -> TokenizedTexts:
    """Tokenize texts; with ``chunk_tokens`` also cut them into chunks of at most so many."""
    ids, ends = [], []
    for part in texts:
        text = part.prompt + join_passage(passage_title(tokenizer, part.title), part.text)
        if chunk_tokens is None:
            ids.append(np.array(tokenizer.encode(text), dtype=np.int64))
            continue
        found = tokenizer.encode_with_offsets(text)
        ids.append(found.ids)
        ends.append(_chunk_ends(text, found.offsets, chunk_tokens))
    joined, lengths = _join(ids)
    return TokenizedTexts(joined, lengths, *(_join(ends) if chunk_tokens is not None else ()))


def _chunk_ends(text: str, offsets: NDArray[np.int64], chunk_tokens: int) -> NDArray[np.int64]:
    if not len(offsets):
        return np.empty(0, dtype=np.int64)
    starts, ends = np.ascontiguousarray(offsets.T)
    return np.array([*chunk_starts(text, starts, ends, chunk_tokens), len(offsets)], dtype=np.int64)[1:]


def _join(rows: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return (np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)), lengths


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def _tokenize_in_process(texts: Sequence[Text], folder: Path, chunk_tokens: int | None) -> TokenizedTexts:
    return tokenize(texts, _tokenizer(folder), chunk_tokens)


class TokenizingPool:
    """Processes that tokenize; with one there is none besides this."""

    def __init__(self, folder: Path, processes: int) -> None:
        """Load the tokenizer of a model folder; :class:`CheckpointError` where that fails."""
        self.tokenizer = Tokenizer.load(folder)
        self.folder = folder
        self.processes = processes
        # Not forked: a fork of a process whose libraries run threads may hang.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, mp_context=context) if processes > 1 else None

    @functools.cached_property
    def sentence_ends(self) -> list[int]:
        """The tokens that end with a mark after which a sentence may begin: ``.``, ``?``, ``."`` and so on."""
        decode, count = self.tokenizer.decode, self.tokenizer.vocabulary_size
        return [number for number in range(count) if _SENTENCE_END.search(decode([number]).strip())]

    def submit(self, texts: Sequence[Text], chunk_tokens: int | None) -> Future[TokenizedTexts]:
        """Begin to tokenize a batch."""
        if self._pool is not None:
            return self._pool.submit(_tokenize_in_process, texts, self.folder, chunk_tokens)
        done: Future[TokenizedTexts] = Future()
        done.set_result(tokenize(texts, self.tokenizer, chunk_tokens))
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class OrderedTexts:
    """Hands batches of texts to a pool, and what comes back to ``take``, in their order."""

    def __init__(self, pool: TokenizingPool, chunk_tokens: int | None, take: Callable[[TokenizedTexts], None]) -> None:
        self._pool = pool
        self._chunk_tokens = chunk_tokens
        self._take = take
        self._waiting: deque[Future[TokenizedTexts]] = deque()

    def add(self, texts: Sequence[Text]) -> None:
        """Hand a batch in; waits where too many are under way."""
        if texts:
            self._waiting.append(self._pool.submit(texts, self._chunk_tokens))
        while len(self._waiting) > _WAITING_MAX * self._pool.processes:
            self._take_first()

    def finish(self) -> None:
        """Wait for all of them."""
        while self._waiting:
            self._take_first()

    def _take_first(self) -> None:
        try:
            self._take(self._waiting.popleft().result())
        except MambaSearchError:
            raise
        except Exception as error:
            raise MambaSearchError(
                f"A process that tokenizes failed ({error}); try again with fewer processes."
            ) from error
