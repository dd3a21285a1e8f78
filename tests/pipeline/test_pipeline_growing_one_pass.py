"""Documents that grow and are read in one pass: new chunks are as if the whole had been read, or the whole is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.document_slices import TokenIds
from encoder.errors import InvalidInput
from encoder.fingerprint import index_fingerprint
from encoder.interface import EncodedDocument, Encoder
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest import states
from ingest.chunk_encoding import ChunkedDocument, ChunksInOnePass
from ingest.documents import Document
from ingest.index.memory import MemoryIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from ingest.states import StateStore
from tests.fakes import FakeEncoder
from tests.float32_encoder import load_float32
from tests.pipelining import DIMENSION, fingerprint, ingest, key, make_chunker, make_document, records_of
from tests.tiny_model import save_tiny_model


class CountingEncoder(FakeEncoder):
    """Remembers how many tokens and chunks each document had; refuses states while ``fussy``."""

    fussy = False

    def __init__(self) -> None:
        super().__init__(dimension=DIMENSION)
        self.chunks: list[int] = []
        self.tokens: list[int] = []

    async def encode_document(
        self, token_ids: TokenIds, chunk_ends: TokenIds, *, state: bytes | None = None, keep_state: bool = False
    ) -> EncodedDocument:
        if self.fussy and state is not None:
            raise InvalidInput("state", "state has another format.")
        self.chunks.append(len(chunk_ends))
        self.tokens.append(len(token_ids))
        return await super().encode_document(token_ids, chunk_ends, state=state, keep_state=keep_state)


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def index() -> MemoryIndex:
    return MemoryIndex(dimension=DIMENSION, fingerprint=fingerprint() + "-one-pass-titles")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateStore:
    monkeypatch.setattr(states, "WRITE_BYTES_MIN", 0)
    return StateStore(tmp_path / "states", bytes_max=1 << 20, keep_s=1e9)


def one_pass(encoder: Encoder, index: MemoryIndex, journal: Journal, store: StateStore | None) -> Ingestor:
    chunks = ChunksInOnePass(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    return Ingestor(encoder, index, make_chunker(), journal, chunk_encoder=chunks, states=store, retry_delays_s=(0,))


def log(last: int) -> Document:
    text = " ".join(f"The entry number{number} of the log stands here." for number in range(last))
    return Document("log", text, title="A log", growing=True)


async def embeddings(index: MemoryIndex, document_id: str = "log") -> tuple[list[str], NDArray[np.float32]]:
    """The texts of a document's chunks in order, and their embeddings as they are in the index."""
    record = (await records_of(index, document_id))[document_id]
    chunks, rows = index.embeddings()
    place = {(chunk.document_id, chunk.generation, chunk.chunk_index): row for row, chunk in enumerate(chunks)}
    found = [place[document_id, record.generation_of(number), number] for number in range(record.chunk_count)]
    return [chunks[row].text for row in found], rows[found]


async def check_as_in_one_pass(index: MemoryIndex, encoder: Encoder, tolerance: float) -> None:
    """Every chunk's embedding is the one that it has where the whole is read at once, cut as it is."""
    texts, found = await embeddings(index)
    chunks = ChunksInOnePass(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    expected = await chunks.encode(encoder, [ChunkedDocument("A log", texts)])
    np.testing.assert_allclose(found, expected, atol=tolerance)


async def test_only_the_new_tokens_are_read(
    encoder: CountingEncoder, index: MemoryIndex, journal: Journal, store: StateStore
) -> None:
    ingestor = one_pass(encoder, index, journal, store)
    for last in (30, 32, 33, 60):
        encoder.chunks.clear()
        held = await records_of(index, "log")
        before = held["log"].chunk_count if held else 0
        receipt = await ingestor.ingest(log(last))
        # The last chunk of before is read again: the state is the one before it.
        assert encoder.chunks == [receipt.chunk_count - before + (before > 0)]
        await check_as_in_one_pass(index, encoder, 1e-6)
    assert (await records_of(index, "log"))["log"].generations == (1, 2, 3, 4)
    assert (await ingestor.ingest(log(60))).outcome is Outcome.UNCHANGED


async def test_what_began_as_one_chunk_needs_no_state(
    encoder: CountingEncoder, index: MemoryIndex, journal: Journal, store: StateStore, tmp_path: Path
) -> None:
    ingestor = one_pass(encoder, index, journal, store)
    assert (await ingestor.ingest(log(1))).chunk_count == 1
    assert not (tmp_path / "states").exists()
    await ingestor.ingest(log(3))
    assert (await records_of(index, "log"))["log"].generations == (1, 2)
    await check_as_in_one_pass(index, encoder, 1e-6)
    assert (await ingestor.ingest(log(4))).generation == 3
    await check_as_in_one_pass(index, encoder, 1e-6)


def damage(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-1])


def swap(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b'"default"', b'"another"'))


def lose(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("harm", [lose, damage, swap])
async def test_without_its_state_a_document_is_read_whole(
    encoder: CountingEncoder,
    index: MemoryIndex,
    journal: Journal,
    store: StateStore,
    tmp_path: Path,
    harm: Callable[[Path], None],
) -> None:
    ingestor = one_pass(encoder, index, journal, store)
    await ingestor.ingest(log(30))
    harm(tmp_path / "states")
    encoder.chunks.clear()
    receipt = await ingestor.ingest(log(32))
    assert (receipt.outcome, encoder.chunks) == (Outcome.INGESTED, [receipt.chunk_count])
    assert (await records_of(index, "log"))["log"].generations == (2,)
    await check_as_in_one_pass(index, encoder, 1e-6)
    await ingestor.ingest(log(34))  # from there it goes on
    assert (await records_of(index, "log"))["log"].generations == (2, 3)


async def test_a_state_that_the_encoder_refuses_is_as_none(
    encoder: CountingEncoder, index: MemoryIndex, journal: Journal, store: StateStore
) -> None:
    ingestor = one_pass(encoder, index, journal, store)
    await ingestor.ingest(log(30))
    encoder.fussy = True
    receipts = await ingest(ingestor, [make_document("a"), log(32), make_document("b")])
    assert [receipt.outcome for receipt in receipts] == [Outcome.INGESTED] * 3
    assert (await records_of(index, "log"))["log"].generations == (2,)
    await check_as_in_one_pass(index, encoder, 1e-6)


async def test_no_states_are_kept_of_others_or_without_a_store(
    encoder: CountingEncoder, index: MemoryIndex, journal: Journal, store: StateStore, tmp_path: Path
) -> None:
    await one_pass(encoder, index, journal, store).ingest(replace(log(30), growing=False))
    assert not (tmp_path / "states").exists()
    ingestor = one_pass(encoder, index, journal, None)
    for last in (31, 33):
        await ingestor.ingest(log(last))
        assert len((await records_of(index, "log"))["log"].segments) == 1
    await check_as_in_one_pass(index, encoder, 1e-6)


async def test_a_deleted_document_leaves_no_state(
    encoder: CountingEncoder, index: MemoryIndex, journal: Journal, store: StateStore, tmp_path: Path
) -> None:
    ingestor = one_pass(encoder, index, journal, store)
    await ingestor.ingest(log(30))
    assert len(list((tmp_path / "states").iterdir())) == 1
    await ingestor.delete("log")
    assert list((tmp_path / "states").iterdir()) == []


async def test_a_failed_version_leaves_the_state_to_go_on_from(
    encoder: CountingEncoder, index: MemoryIndex, journal: Journal, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestor = one_pass(encoder, index, journal, store)
    await ingestor.ingest(log(30))
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(index, "upsert_chunks", _refuse)
            with pytest.raises(InvalidInput):
                await ingestor.ingest(log(32))
    await ingestor.ingest(log(34))
    record = (await records_of(index, "log"))["log"]
    assert record.generations == (1, 4)
    assert await index.count_chunks(key("log"), *record.generations) == record.chunk_count
    await check_as_in_one_pass(index, encoder, 1e-6)


async def _refuse(chunks: object) -> None:
    raise InvalidInput("embedding", "embedding is refused.")


async def test_many_documents_grow_in_one_stream(
    encoder: CountingEncoder, index: MemoryIndex, journal: Journal, store: StateStore
) -> None:
    ingestor = one_pass(encoder, index, journal, store)
    for last in (3, 20, 24):
        documents = [replace(log(last + number), document_id=f"log{number}") for number in range(6)]
        receipts = await ingest(ingestor, [*documents, *(make_document(f"d{number}", last) for number in range(6))])
        assert {receipt.outcome for receipt in receipts} == {Outcome.INGESTED}
    for number in range(6):
        texts, found = await embeddings(index, f"log{number}")
        chunks = ChunksInOnePass(Tokenizer.load(DEFAULT_MODEL_FOLDER))
        np.testing.assert_allclose(found, await chunks.encode(encoder, [ChunkedDocument("A log", texts)]), atol=1e-6)


async def test_the_models_embeddings_are_those_of_one_pass(journal: Journal, store: StateStore, tmp_path: Path) -> None:
    encoder = load_float32(save_tiny_model(tmp_path / "model", n_layers=2))
    info = await encoder.info()
    chunks = ChunksInOnePass(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    made_by = index_fingerprint(info.fingerprint, chunks.fingerprint(make_chunker().fingerprint))
    index = MemoryIndex(dimension=info.dimension, fingerprint=made_by)
    ingestor = one_pass(encoder, index, journal, store)
    for last in (1, 4, 20, 23):
        await ingestor.ingest(log(last))
    assert (await records_of(index, "log"))["log"].generations == (1, 2, 3, 4)
    await check_as_in_one_pass(index, encoder, 1e-5)
    texts, found = await embeddings(index)
    alone = await encoder.encode_passages([f"A log\n{text}" for text in texts])
    assert abs(found[-1] - alone.embeddings[-1]).max() > 1e-3  # it knows what came before it
    await encoder.close()
