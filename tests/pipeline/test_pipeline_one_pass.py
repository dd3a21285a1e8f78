"""Chunks that are encoded in one pass through their document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from encoder.document_slices import TokenIds
from encoder.errors import FingerprintMismatch, InvalidInput
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoded, EncodedDocument, Encoder
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunk_encoding import ChunkedDocument, ChunksInOnePass
from ingest.documents import Document
from ingest.index.interface import BATCH_CHUNKS_MAX
from ingest.index.memory import MemoryIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from tests.fakes import FakeEncoder
from tests.float32_encoder import load_float32
from tests.pipelining import DIMENSION, fingerprint, ingest, key, make_chunker, make_document
from tests.tiny_model import save_tiny_model


class CountingEncoder(FakeEncoder):
    """Remembers what it was asked for; refuses documents that begin with the refused token."""

    def __init__(self) -> None:
        super().__init__(dimension=DIMENSION)
        self.documents: list[int] = []  # how many chunks each had
        self.passages: list[int] = []  # how many each batch had
        self.refused_tokens: list[int] = []

    async def encode_document(
        self, token_ids: TokenIds, chunk_ends: TokenIds, *, state: bytes | None = None, keep_state: bool = False
    ) -> EncodedDocument:
        self.documents.append(len(chunk_ends))
        if list(token_ids[: len(self.refused_tokens)]) == self.refused_tokens and self.refused_tokens:
            raise InvalidInput("token_ids[0]", "token_ids[0] is refused.")
        return await super().encode_document(token_ids, chunk_ends, state=state, keep_state=keep_state)

    async def encode_tokenized_passages(self, passages: Sequence[TokenIds]) -> Encoded:
        self.passages.append(len(passages))
        return await super().encode_tokenized_passages(passages)


def one_pass(encoder: Encoder, index: MemoryIndex, journal: Journal) -> Ingestor:
    chunks = ChunksInOnePass(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    return Ingestor(encoder, index, make_chunker(), journal, chunk_encoder=chunks, retry_delays_s=(0,))


@pytest.fixture
def index() -> MemoryIndex:
    return MemoryIndex(dimension=DIMENSION, fingerprint=fingerprint() + "-one-pass-titles")


async def test_documents_are_read_whole_and_those_of_one_chunk_together(index: MemoryIndex, journal: Journal) -> None:
    encoder = CountingEncoder()
    documents = [make_document("long", 12), *(Document(f"short{n}", f"word {n}") for n in range(5))]
    receipts = await ingest(one_pass(encoder, index, journal), documents)
    assert [receipt.outcome for receipt in receipts] == [Outcome.INGESTED] * 6
    assert encoder.documents == [receipts[0].chunk_count]
    # What has been cut by then goes together: on a busy machine perhaps in two requests.
    assert sum(encoder.passages) == 5
    assert max(encoder.passages) > 1


async def test_more_chunks_than_one_write_takes_are_all_written(index: MemoryIndex, journal: Journal) -> None:
    encoder = CountingEncoder()
    (receipt,) = await ingest(one_pass(encoder, index, journal), [make_document("long", 400)])
    assert receipt.chunk_count > BATCH_CHUNKS_MAX
    assert encoder.documents == [receipt.chunk_count]
    assert await index.count_chunks(key("long"), 1) == receipt.chunk_count


async def test_a_document_that_is_refused_fails_alone(index: MemoryIndex, journal: Journal) -> None:
    encoder = CountingEncoder()
    encoder.refused_tokens = Tokenizer.load(DEFAULT_MODEL_FOLDER).encode("About bad")
    receipts = await ingest(one_pass(encoder, index, journal), [make_document(name) for name in ("a", "bad", "c")])
    assert [receipt.outcome for receipt in receipts] == [Outcome.INGESTED, Outcome.REJECTED, Outcome.INGESTED]
    assert "bad cannot be encoded: token_ids[0] is refused" in str(receipts[1].error)
    assert (await index.stats()).document_count == 2


async def test_an_index_of_chunks_alone_is_refused(journal: Journal) -> None:
    index = MemoryIndex(dimension=DIMENSION, fingerprint=fingerprint())
    with pytest.raises(FingerprintMismatch, match="-one-pass"):
        await one_pass(CountingEncoder(), index, journal).ingest(make_document("a"))
    assert index_fingerprint("m", ChunksInOnePass(Tokenizer.load(DEFAULT_MODEL_FOLDER)).fingerprint("c")).endswith(
        "c-one-pass-titles"
    )


async def test_embeddings_are_those_of_the_document_in_one_pass(tmp_path: Path) -> None:
    """Each chunk comes with the title; a document of one chunk is the passage that it would be alone."""
    encoder = load_float32(save_tiny_model(tmp_path / "model", n_layers=2))
    tokenizer = Tokenizer.load(tmp_path / "model")
    texts = ["First part.", "Second part of it.", "And a third."]
    documents = [ChunkedDocument("A title", texts), ChunkedDocument("", ["Alone."])]
    found = await ChunksInOnePass(tokenizer).encode(encoder, documents)
    rows = [tokenizer.encode(f"A title\n{text}") for text in texts]
    read = await encoder.encode_document([*rows[0], *rows[1], *rows[2]], np.cumsum([len(row) for row in rows]))
    alone = await encoder.encode_passages(["Alone.", "A title\nSecond part of it."])
    await encoder.close()
    np.testing.assert_allclose(found[:3], read.embeddings, atol=1e-6)
    np.testing.assert_allclose(found[3], alone.embeddings[0], atol=1e-6)
    assert abs(found[1] - alone.embeddings[1]).max() > 1e-3  # it knows what came before it
