"""How the chunks of documents become embeddings: each on its own, or all of a document in one pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.document_slices import TokenIds
from encoder.errors import CheckpointError
from encoder.interface import EncodedDocument, Encoder, EncoderInfo
from encoder.passage_text import join_passage
from encoder.tokenizer import Tokenizer
from ingest.chunk_rules import ChunkEncoding
from ingest.chunking import Chunker


@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """The chunks of one document that are encoded together, in order."""

    title: str  # as passages have it: one line, cut short
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class ReadBefore:
    """What came before the first of some chunks in their document."""

    last_text: str  # of the last chunk
    state: bytes | None  # the encoder's, before that chunk; None where it is the first one


class ChunkEncoder(Protocol):
    """Turns chunks into embeddings. Stateless: safe for several calls at once."""

    @property
    def reads_whole_documents(self) -> bool:
        """Whether all chunks of a document have to come in one call."""

    def fingerprint(self, chunker: str) -> str:
        """Add to the chunker's fingerprint what this way of encoding changes about an embedding."""

    def check(self, info: EncoderInfo, chunker: Chunker) -> None:
        """:class:`CheckpointError` where the model cannot read what the chunker cuts."""

    async def encode(self, encoder: Encoder, documents: Sequence[ChunkedDocument]) -> NDArray[np.float32]:
        """Embed the chunks of some documents: ``(n, d)`` in their order. Raises what the encoder raises."""


def make_chunk_encoder(encoding: ChunkEncoding, tokenizer: Tokenizer) -> ChunkEncoder:
    """Make what encodes in one of the ways."""
    return ChunksInOnePass(tokenizer) if encoding == "one-pass" else ChunksAlone()


class ChunksAlone:
    """Each chunk is a passage of its own, with its document's title."""

    reads_whole_documents = False

    def fingerprint(self, chunker: str) -> str:
        """Say nothing: this is how an index is made unless it says otherwise."""
        return chunker

    def check(self, info: EncoderInfo, chunker: Chunker) -> None:
        """Refuse a model that reads less than a title and a chunk."""
        if info.passage_tokens_max < chunker.passage_tokens_max:
            raise CheckpointError(
                f"Model {info.model} reads passages of up to {info.passage_tokens_max} tokens, but chunks with their "
                f"titles have up to {chunker.passage_tokens_max}; use another model or smaller chunks."
            )

    async def encode(self, encoder: Encoder, documents: Sequence[ChunkedDocument]) -> NDArray[np.float32]:
        """Encode all chunks as one batch."""
        passages = [join_passage(document.title, text) for document in documents for text in document.texts]
        return (await encoder.encode_passages(passages)).embeddings


class ChunksInOnePass:
    """A document is read once: the passages that its chunks would be alone, one after another.

    Each chunk's embedding knows all that came before it. The title stands before every chunk, not only before the
    first: what a state of fixed size has read a thousand tokens ago is faint.
    """

    reads_whole_documents = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def fingerprint(self, chunker: str) -> str:
        """Tell such embeddings from those of chunks alone."""
        return f"{chunker}-one-pass-titles"

    def check(self, info: EncoderInfo, chunker: Chunker) -> None:
        """Accept any: a document may be of any length, and so may a chunk in it."""

    async def encode(self, encoder: Encoder, documents: Sequence[ChunkedDocument]) -> NDArray[np.float32]:
        """Encode documents of one chunk as a batch, as for them both ways are the same; the others one by one."""
        rows = await asyncio.to_thread(self._tokenize, documents)
        tokens_max = (await encoder.info()).passage_tokens_max // 2  # a prompt and special tokens come on top
        short = [number for number, row in enumerate(rows) if len(row) == 1 and len(row[0]) <= tokens_max]
        embeddings: dict[int, NDArray[np.float32]] = {}
        if short:
            together = await encoder.encode_tokenized_passages([rows[number][0] for number in short])
            embeddings = {number: row[None] for number, row in zip(short, together.embeddings, strict=True)}
        for number, row in enumerate(rows):
            if number not in embeddings:
                read = await self._encode_document(encoder, row, state=None, keep_state=False)
                embeddings[number] = read.embeddings
        return np.concatenate([embeddings[number] for number in range(len(rows))])

    async def encode_growing(
        self, encoder: Encoder, document: ChunkedDocument, before: ReadBefore | None, *, keep_state: bool
    ) -> EncodedDocument:
        """Embed the chunks of a document, or those that follow what was read ``before``: ``(n, d)`` in their order.

        With ``keep_state`` the result has the state before the last chunk. :class:`InvalidInput` names ``state`` where
        the encoder cannot go on from the one given; else raises what the encoder raises.
        """
        repeated = [before.last_text] if before else []
        whole = ChunkedDocument(document.title, [*repeated, *document.texts])
        (row,) = await asyncio.to_thread(self._tokenize, [whole])
        state = before.state if before else None
        read = await self._encode_document(encoder, row, state=state, keep_state=keep_state)
        return replace(read, embeddings=read.embeddings[len(repeated) :])

    async def _encode_document(
        self, encoder: Encoder, passages: Sequence[TokenIds], *, state: bytes | None, keep_state: bool
    ) -> EncodedDocument:
        ids = np.concatenate([np.asarray(passage, np.int64) for passage in passages])
        ends = np.cumsum([len(passage) for passage in passages])
        return await encoder.encode_document(ids, ends, state=state, keep_state=keep_state)

    def _tokenize(self, documents: Sequence[ChunkedDocument]) -> list[list[NDArray[np.int32]]]:
        """Give the token ids of every passage of every document."""
        texts = [join_passage(document.title, text) for document in documents for text in document.texts]
        ids = iter(self._tokenizer.encode_batch(texts))
        return [[next(ids) for _ in document.texts] for document in documents]
