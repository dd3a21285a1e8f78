"""Stand-ins for parts that are slow to start."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.document_slices import TokenIds, encode_in_slices
from encoder.errors import FingerprintMismatch, InvalidInput
from encoder.interface import DocumentReading, Encoded, EncodedDocument, EncoderInfo, TokenRow

VOCABULARY_SIZE = 32_768
# What ends a row: of words, whose numbers are hashes, or of token ids.
_WORDS_END, _IDS_END = -1, -2


class FakeEncoder:
    """A deterministic encoder: hashed bag of words, so that texts which share words are near one another."""

    reads_in_pieces = True
    reads_side_by_side = False
    reads_ahead = False

    def __init__(self, *, dimension: int = 384, fingerprint: str = "fake", query_tokens_max: int = 512) -> None:
        self._info = EncoderInfo(
            model="fake",
            fingerprint=fingerprint,
            dimension=dimension,
            query_tokens_max=query_tokens_max,
            passage_tokens_max=8192,
            batch_size_max=1024,
        )

    async def info(self) -> EncoderInfo:
        return self._info

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        return await self._encoded(await self.query_rows(queries), self.embed_queries)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        return await self._encoded(await self.passage_rows(passages), self.embed_passages)

    async def encode_tokenized_passages(self, passages: Sequence[TokenIds]) -> Encoded:
        return await self._encoded(await self.token_rows(passages), self.embed_passages)

    async def warm_up(self) -> None:
        pass

    async def query_rows(self, queries: Sequence[str]) -> list[TokenRow]:
        return self._rows("queries", queries, self._info.query_tokens_max)

    async def passage_rows(self, passages: Sequence[str]) -> list[TokenRow]:
        return self._rows("passages", passages, self._info.passage_tokens_max)

    async def token_rows(self, passages: Sequence[TokenIds]) -> list[TokenRow]:
        for place, ids in enumerate(passages):
            if len(ids) + 1 > self._info.passage_tokens_max:
                raise InvalidInput(f"passages[{place}]", f"passages[{place}] has {len(ids) + 1} tokens.")
            try:
                _check_ids(np.asarray(ids, dtype=np.int64))
            except InvalidInput as error:
                raise InvalidInput(f"passages[{place}]", f"passages[{place}]: {error}") from None
        return [np.append(ids, _IDS_END).astype(np.int32) for ids in passages]

    async def embed_queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        return await self._embed(rows)

    async def embed_passages(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        return await self._embed(rows)

    async def open_row(self) -> DocumentReading:
        return FakeRowReading(self._embed)

    async def encode_document(
        self, token_ids: TokenIds, chunk_ends: TokenIds, *, state: bytes | None = None, keep_state: bool = False
    ) -> EncodedDocument:
        return await encode_in_slices(
            self.open_document, token_ids, chunk_ends, state=state, keep_state=keep_state, tokens_max=1000
        )

    async def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReading:
        return FakeReading(self._info, state, keep_state=keep_state)

    async def close(self) -> None:
        pass

    async def _encoded(
        self, rows: list[TokenRow], embed: Callable[[Sequence[TokenRow]], Awaitable[NDArray[np.float32]]]
    ) -> Encoded:
        return Encoded(embeddings=await embed(rows), token_counts=tuple(map(len, rows)))

    def _rows(self, field: str, texts: Sequence[str], tokens_max: int) -> list[TokenRow]:
        if not texts:
            raise InvalidInput(field, f"{field} is empty; give at least one text.")
        rows = []
        for place, text in enumerate(texts):
            words = re.findall(r"\w+", text.lower())
            if not words:
                raise InvalidInput(f"{field}[{place}]", f"{field}[{place}] is empty or only white space.")
            if len(words) + 1 > tokens_max:
                says = f"{field}[{place}] has {len(words) + 1} tokens; the limit is {tokens_max}. Shorten it."
                raise InvalidInput(f"{field}[{place}]", says)
            digests = [hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words]
            places = [int.from_bytes(digest[:4]) % self._info.dimension for digest in digests]
            tokens = [place * 2 + (digest[4] & 1) for place, digest in zip(places, digests, strict=True)]
            rows.append(np.array([*tokens, _WORDS_END], dtype=np.int32))
        return rows

    async def _embed(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        embeddings = np.zeros((len(rows), self._info.dimension), dtype=np.float32)
        for place, (*tokens, end) in enumerate(rows):
            if end == _IDS_END:
                reading = FakeReading(self._info, None, keep_state=False)
                embeddings[place] = (await reading.read(tokens, [len(tokens)]))[0]
                continue
            for number in tokens:
                embeddings[place, number >> 1] += 1 if number & 1 else -1
            embeddings[place, 0] += 1e-3  # two words may cancel out
            embeddings[place] /= np.linalg.norm(embeddings[place])
        return embeddings


class FakeRowReading:
    """A row that comes in pieces: its embedding is the whole row's."""

    def __init__(self, embed: Callable[[Sequence[TokenRow]], Awaitable[NDArray[np.float32]]]) -> None:
        self._embed = embed
        self._row: list[int] = []

    @property
    def token_count(self) -> int:
        return len(self._row)

    async def read(self, token_ids: TokenIds, chunk_ends: TokenIds) -> NDArray[np.float32]:
        self._row.extend(int(number) for number in token_ids)
        return await self._embed([np.array(self._row, dtype=np.int32)] if len(chunk_ends) else [])

    async def finish(self) -> bytes | None:
        return None


def _check_ids(ids: NDArray[np.int64]) -> None:
    for place in np.flatnonzero(ids >= VOCABULARY_SIZE)[:1]:
        name = f"token_ids[{place}]"
        raise InvalidInput(name, f"{name} is {ids[place]}; the vocabulary has ids 0 to {VOCABULARY_SIZE - 1}.")


class FakeReading:
    """A document under way: a chunk's embedding is a histogram of all ids so far, each weighted by its place.

    Its sums are of integers, so that no cut changes them.
    """

    def __init__(self, info: EncoderInfo, state: bytes | None, *, keep_state: bool) -> None:
        self._info = info
        self._keep_state = keep_state
        self._sums = np.zeros(info.dimension + 1, dtype=np.int64)  # the last counts the tokens of the document
        if state is not None:
            self._sums = self._restored(state)
        self._before_last_chunk = self._sums.copy()
        self._before_this_chunk = self._sums.copy()
        self.token_count = 0

    async def read(self, token_ids: TokenIds, chunk_ends: TokenIds) -> NDArray[np.float32]:
        ids = np.asarray(token_ids, dtype=np.int64)
        _check_ids(ids)
        ready, start = [], 0
        for end in chunk_ends:
            self._add(ids[start:end])
            self._before_last_chunk, self._before_this_chunk = self._before_this_chunk, self._sums.copy()
            row = self._sums[None, :-1].astype(np.float32) + np.float32(0.5)
            row /= np.linalg.norm(row)
            ready.append(row)
            self.token_count += 1
            start = int(end)
        self._add(ids[start:])
        self.token_count += len(ids)
        return np.concatenate(ready) if ready else np.zeros((0, self._info.dimension), dtype=np.float32)

    async def finish(self) -> bytes | None:
        return self._saved() if self._keep_state else None

    def _add(self, ids: NDArray[np.int64]) -> None:
        places = self._sums[-1] + np.arange(len(ids))
        np.add.at(self._sums, ids * 7919 % self._info.dimension, 1 + places % 5)
        self._sums[-1] += len(ids)

    def _saved(self) -> bytes:
        return b"fake\n" + self._info.fingerprint.encode() + b"\n" + self._before_last_chunk.tobytes()

    def _restored(self, state: bytes) -> NDArray[np.int64]:
        kind, _, rest = state.partition(b"\n")
        fingerprint, _, data = rest.partition(b"\n")
        if kind != b"fake" or len(data) != self._sums.nbytes:
            raise InvalidInput("state", f"state has {len(state)} bytes, which are no state; encode the document anew.")
        if fingerprint.decode() != self._info.fingerprint:
            raise FingerprintMismatch(
                f"The state is of model {fingerprint.decode()}, the encoder runs {self._info.fingerprint}."
            )
        return np.frombuffer(data, dtype=np.int64).copy()
