"""What an encoder is, seen from outside: texts or token ids in, embeddings out. Knows no torch, no gRPC.

Two classes fulfil :class:`Encoder`: ``encoder.local.LocalEncoder`` (the model in this process) and
``encoder.client.EncoderClient`` (the encoder service).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """Which model encodes, and its limits (all in tokens, the end-of-sequence token included, or in texts)."""

    model: str
    fingerprint: str
    dimension: int
    query_tokens_max: int
    passage_tokens_max: int
    batch_size_max: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """Embeddings of a list of texts, in the texts' order."""

    embeddings: NDArray[np.float32]  # (n, d), each row of length 1
    token_counts: tuple[int, ...]  # (n,), the end-of-sequence token included
    tokenize_time_s: float = 0.0  # spent on turning the texts into tokens, where the encoder tells
    queue_time_s: float = 0.0  # spent waiting for other requests, where the encoder tells


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """Embeddings of a document's chunks, read in one pass, in their order."""

    embeddings: NDArray[np.float32]  # (n, d), each row of length 1
    token_count: int  # tokens read, prompt and end-of-sequence tokens included
    state: bytes | None = None  # the model's state before the last chunk, where it was asked for


class Encoder(Protocol):
    """Turns texts into L2-normalized embeddings.

    All methods raise the errors of :mod:`encoder.errors`: :class:`InvalidInput` for an empty
    list, an empty text or one over its limit; :class:`EncoderUnavailable` where the service cannot be reached.
    """

    async def info(self) -> EncoderInfo:
        """Say which model encodes, and its limits."""

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Encode search queries."""

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Encode passages, the texts to be found."""

    async def encode_tokenized_passages(self, passages: Sequence[Sequence[int] | NDArray[np.integer]]) -> Encoded:
        """Encode passages given as the tokenizer's ids, without special tokens: nothing is tokenized twice."""

    async def encode_document(
        self,
        token_ids: Sequence[int] | NDArray[np.integer],
        chunk_ends: Sequence[int] | NDArray[np.integer],
        *,
        state: bytes | None = None,
        keep_state: bool = False,
    ) -> EncodedDocument:
        """Encode a document of any length in one pass: each chunk's embedding knows all that came before it.

        ``token_ids`` are the tokenizer's, without special tokens; chunk ``i`` is ``token_ids[chunk_ends[i-1]:
        chunk_ends[i]]``, and the last end is the number of ids. With ``keep_state`` the result carries the state
        before the last chunk; given back as ``state`` with that chunk's text (which may be cut anew) and what
        follows it, it continues the document without reading it again.
        :class:`InvalidInput` for ends that do not rise, ids outside the vocabulary, a state that is damaged or a
        bidirectional model; :class:`FingerprintMismatch` for another model's state.
        """

    async def close(self) -> None:
        """Let go of connections and threads."""


class DocumentReading(Protocol):
    """One document under way: tokens come in stretches of any length, embeddings as chunks end.

    Faults are named by their place in the stretch: ``token_ids[3]`` is the fourth id given to this :meth:`read`.
    """

    @property
    def token_count(self) -> int:
        """Tokens read so far, prompt and end-of-sequence tokens included."""

    async def read(
        self, token_ids: Sequence[int] | NDArray[np.integer], chunk_ends: Sequence[int] | NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Read on; ``chunk_ends`` are places in this stretch, 1 to its length, none where no chunk ends in it.

        Gives the embeddings ``(n, d)`` of the chunks that end in it.
        """

    async def finish(self) -> bytes | None:
        """End the document; gives the state before its last chunk where it was to be kept.

        :class:`InvalidInput` where tokens stand after the last chunk's end, or nothing was read.
        """


TokenRow = NDArray[np.int32]  # (l,), a text's tokens as the model reads them, with prompt and special tokens


class StreamingEncoder(Encoder, Protocol):
    """An encoder as the encoder service runs it: it reads what a scheduler puts together.

    Texts become rows of tokens first, so that batches can be filled by tokens, from several requests; documents and
    long rows are read stretch by stretch, between other requests. Queries may be embedded while passages are.
    """

    @property
    def reads_in_pieces(self) -> bool:
        """Whether :meth:`open_row` and :meth:`open_document` work: not for bidirectional models."""

    @property
    def reads_side_by_side(self) -> bool:
        """Whether queries are read while passages are, and need not wait for them."""

    @property
    def reads_ahead(self) -> bool:
        """Whether a batch may be given while another is read: it is made ready meanwhile, and read right after it."""

    async def warm_up(self) -> None:
        """Read a little of everything, so that the first requests are as fast as those after them."""

    async def query_rows(self, queries: Sequence[str]) -> list[TokenRow]:
        """Tokenize queries; :class:`InvalidInput` names ``queries[i]`` where one is empty or over its limit."""

    async def passage_rows(self, passages: Sequence[str]) -> list[TokenRow]:
        """Tokenize passages; :class:`InvalidInput` names ``passages[i]`` where one is empty or over its limit."""

    async def token_rows(self, passages: Sequence[Sequence[int] | NDArray[np.integer]]) -> list[TokenRow]:
        """Complete passages given as token ids; :class:`InvalidInput` names ``passages[i]``."""

    async def embed_queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        """Embed rows of queries: ``(n, d)``."""

    async def embed_passages(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        """Embed rows of passages: ``(n, d)``."""

    async def open_row(self) -> DocumentReading:
        """Begin one row of a passage that is to be read in pieces; its embedding comes with its last piece."""

    async def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReading:
        """Begin a document, or continue one from its ``state``; errors as for :meth:`Encoder.encode_document`."""
