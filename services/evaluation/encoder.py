"""An encoder as the evaluation uses it: it knows all queries beforehand, and how fast documents were read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from encoder.document_slices import TokenIds
from encoder.errors import InvalidInput
from encoder.interface import Encoded, EncodedDocument, Encoder, EncoderInfo

QUERY_BATCH = 256


class EvaluationEncoder:
    """Passes everything on. An embedding never depends on its batch, so a search finds what it would find alone.

    With ``needed=False`` passages are not encoded: each gets the same embedding, where nobody will search by it. With
    ``repeated=True`` a passage that comes again is not read again: lengthened documents share most of their text.
    """

    def __init__(self, encoder: Encoder, *, needed: bool = True, repeated: bool = False) -> None:
        self._encoder = encoder
        self._needed = needed
        self._repeated = repeated
        self._known: dict[str, tuple[NDArray[np.float32], int]] = {}
        self._read: dict[str, tuple[NDArray[np.float32], int]] = {}
        self._calls = 0  # under way
        self._busy_since = 0.0
        self.tokens = 0  # of documents
        self.busy_s = 0.0  # while any of them were being encoded

    async def learn(self, queries: Sequence[str]) -> None:
        """Read queries. A batch with one that the encoder refuses is left out: its search will say which, and why."""
        size = min(QUERY_BATCH, (await self._encoder.info()).batch_size_max)
        unknown = [query for query in dict.fromkeys(queries) if query not in self._known]
        for start in range(0, len(unknown), size):
            batch = unknown[start : start + size]
            with suppress(InvalidInput):
                encoded = await self._encoder.encode_queries(batch)
                self._known |= zip(batch, zip(encoded.embeddings, encoded.token_counts, strict=True), strict=True)

    async def info(self) -> EncoderInfo:
        """Say which model encodes, and its limits."""
        return await self._encoder.info()

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Give what is known, or encode."""
        if any(query not in self._known for query in queries):
            return await self._encoder.encode_queries(queries)
        return _looked_up(self._known, queries)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Encode passages, and count them."""
        if not self._needed:
            return Encoded(await self._unneeded(len(passages)), (0,) * len(passages))
        if not self._repeated:
            return await self._encode_passages(passages)
        if new := [passage for passage in dict.fromkeys(passages) if passage not in self._read]:
            encoded = await self._encode_passages(new)
            self._read |= zip(new, zip(encoded.embeddings, encoded.token_counts, strict=True), strict=True)
        return _looked_up(self._read, passages)

    async def encode_tokenized_passages(self, passages: Sequence[TokenIds]) -> Encoded:
        """Encode passages given as token ids, and count them."""
        if not self._needed:
            return Encoded(await self._unneeded(len(passages)), (0,) * len(passages))
        with self._metered():
            encoded = await self._encoder.encode_tokenized_passages(passages)
        self.tokens += sum(encoded.token_counts)
        return encoded

    async def encode_document(
        self, token_ids: TokenIds, chunk_ends: TokenIds, *, state: bytes | None = None, keep_state: bool = False
    ) -> EncodedDocument:
        """Encode a document in one pass, and count it."""
        if not self._needed:
            return EncodedDocument(await self._unneeded(len(chunk_ends)), 0)
        with self._metered():
            encoded = await self._encoder.encode_document(token_ids, chunk_ends, state=state, keep_state=keep_state)
        self.tokens += encoded.token_count
        return encoded

    async def close(self) -> None:
        """Close the encoder."""
        await self._encoder.close()

    async def _encode_passages(self, passages: Sequence[str]) -> Encoded:
        with self._metered():
            encoded = await self._encoder.encode_passages(passages)
        self.tokens += sum(encoded.token_counts)
        return encoded

    async def _unneeded(self, count: int) -> NDArray[np.float32]:
        return np.ones((count, (await self._encoder.info()).dimension), np.float32)

    @contextmanager
    def _metered(self) -> Iterator[None]:
        """Count the time in which at least one call is under way."""
        if self._calls == 0:
            self._busy_since = time.perf_counter()
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if self._calls == 0:
                self.busy_s += time.perf_counter() - self._busy_since


def _looked_up(known: Mapping[str, tuple[NDArray[np.float32], int]], texts: Sequence[str]) -> Encoded:
    found = [known[text] for text in texts]
    return Encoded(np.stack([embedding for embedding, _ in found]), tuple(count for _, count in found))
