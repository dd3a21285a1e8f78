"""The model in this process behind the asynchronous :class:`encoder.interface.StreamingEncoder`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.document_reader import DocumentReader
from encoder.document_slices import SLICE_TOKENS, TokenIds, encode_in_slices
from encoder.interface import DocumentReading, Encoded, EncodedDocument, EncoderInfo, TokenRow
from encoder.text_encoder import TextEncoder

# Tokenized in 0.3 ms: queries of this many characters in all do not leave the event loop waiting.
_CHARACTERS_AT_ONCE = 4_096

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class LocalEncoder:
    """Runs a :class:`TextEncoder` in threads of its own, so that forward passes never block the event loop.

    On a CPU queries and passages have a thread each, and the system shares the cores between them by their niceness. A
    GPU takes one batch after the other: one thread launches them, and another waits for their embeddings, so that the
    next is launched meanwhile. Passages are tokenized in a thread of their own: thousands of them take a while.
    """

    def __init__(self, text_encoder: TextEncoder) -> None:
        self._text_encoder = text_encoder
        self._passages = _Thread("passages")
        self._queries = _Thread("queries") if text_encoder.device.type == "cpu" else self._passages
        self._tokenizing = _Thread("tokenizing")
        self._fetching = _Thread("fetching")

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        passages_niceness: int = 0,
        eight_bits: bool | None = None,
    ) -> LocalEncoder:
        """Load a model folder as :meth:`TextEncoder.load` does."""
        text_encoder = TextEncoder.load(
            folder, device=device, threads=threads, passages_niceness=passages_niceness, eight_bits=eight_bits
        )
        return cls(text_encoder)

    @property
    def reads_in_pieces(self) -> bool:
        """Whether long texts and documents can be read in pieces."""
        return self._text_encoder.reads_in_pieces

    @property
    def reads_side_by_side(self) -> bool:
        """Whether queries are read while passages are, and need not wait for them."""
        return self._queries is not self._passages

    @property
    def reads_ahead(self) -> bool:
        """Whether a batch may be given while another is read, to be launched right behind it."""
        return self._text_encoder.reads_ahead

    async def warm_up(self) -> None:
        """Read a little of everything, so that the first requests are as fast as those after them."""
        await self._passages.run(self._text_encoder.warm_up)

    async def info(self) -> EncoderInfo:
        """Say which model encodes, and its limits."""
        return self._text_encoder.info

    async def query_rows(self, queries: Sequence[str]) -> list[TokenRow]:
        """Tokenize queries: so few and short as to take less time than a thread's waking up."""
        if sum(map(len, queries)) <= _CHARACTERS_AT_ONCE:
            return self._text_encoder.query_rows(queries)
        return await self._tokenizing.run(self._text_encoder.query_rows, queries)

    async def passage_rows(self, passages: Sequence[str]) -> list[TokenRow]:
        """Tokenize passages."""
        return await self._tokenizing.run(self._text_encoder.passage_rows, passages)

    async def token_rows(self, passages: Sequence[TokenIds]) -> list[TokenRow]:
        """Complete passages given as token ids."""
        return await self._tokenizing.run(self._text_encoder.token_rows, passages)

    async def embed_queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        """Embed rows of queries."""
        if self.reads_ahead:
            return await self._embed_ahead(rows)
        return await self._queries.run(self._text_encoder.embed_queries, rows)

    async def embed_passages(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        """Embed rows of passages."""
        if self.reads_ahead:
            return await self._embed_ahead(rows)
        return await self._passages.run(self._text_encoder.embed_passages, rows)

    async def _embed_ahead(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        packs = await self._passages.run(self._text_encoder.launch, rows)
        return await self._fetching.run(packs.embeddings)

    async def open_row(self) -> DocumentReading:
        """Begin one row of a passage that is to be read in pieces."""
        return _LocalReading(await self._passages.run(self._text_encoder.open_row), self._passages)

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Encode search queries."""
        return await self._queries.run(self._text_encoder.encode_queries, queries)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Encode passages."""
        return await self._passages.run(self._text_encoder.encode_passages, passages)

    async def encode_tokenized_passages(self, passages: Sequence[TokenIds]) -> Encoded:
        """Encode passages given as token ids."""
        return await self._passages.run(self._text_encoder.encode_tokenized_passages, passages)

    async def encode_document(
        self, token_ids: TokenIds, chunk_ends: TokenIds, *, state: bytes | None = None, keep_state: bool = False
    ) -> EncodedDocument:
        """Encode a document of any length in one pass."""
        return await encode_in_slices(
            self.open_document, token_ids, chunk_ends, state=state, keep_state=keep_state, tokens_max=SLICE_TOKENS
        )

    async def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReading:
        """Begin a document, or continue one from its ``state``."""
        reader = await self._passages.run(self._text_encoder.open_document, state=state, keep_state=keep_state)
        return _LocalReading(reader, self._passages)

    async def close(self) -> None:
        """Wait for the running forward passes and end the threads."""
        for thread in {self._queries, self._passages, self._tokenizing, self._fetching}:
            await thread.close()


class _LocalReading:
    """One document under way in the encoder's thread."""

    def __init__(self, reader: DocumentReader, thread: _Thread) -> None:
        self._reader = reader
        self._thread = thread

    @property
    def token_count(self) -> int:
        """Tokens read so far."""
        return self._reader.token_count

    async def read(self, token_ids: TokenIds, chunk_ends: TokenIds) -> NDArray[np.float32]:
        """Read on."""
        return await self._thread.run(self._reader.read, token_ids, chunk_ends)

    async def finish(self) -> bytes | None:
        """End the document."""
        return await self._thread.run(self._reader.finish)


class _Thread:
    """A thread that does one thing after the other."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Await ``work``. Who is cancelled waits no longer; work that has begun goes on to its end."""
        return await asyncio.wrap_future(self._executor.submit(work, *args, **kwargs))

    async def close(self) -> None:
        """Wait for the work under way."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
