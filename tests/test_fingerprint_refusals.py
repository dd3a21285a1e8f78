"""An index takes neither a writer nor a reader of another model, pooling, tokenizer or chunker."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from encoder.errors import FingerprintMismatch
from encoder.fingerprint import index_fingerprint, model_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer
from ingest.chunk_encoding import make_chunk_encoder
from ingest.chunk_rules import ChunkEncoding
from ingest.chunking import Chunker
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.index.remote import RemoteIndex
from ingest.index.server import ServerIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from tests.fakes import FakeEncoder
from tests.indexes import running_owner
from tests.pipelining import make_document
from tests.qdrant_over_grpc import qdrant_over_grpc
from tests.tiny_model import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

DIMENSION = 32
TOKENIZER = Tokenizer.load(DEFAULT_MODEL_FOLDER)


def with_other_tokenizer(folder: Path) -> Path:
    """A tokenizer that splits words otherwise: it has lost one of its tokens."""
    save_tiny_model(folder)
    file = folder / TOKENIZER_FILE
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    tokenizer["normalizer"] = None
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


MODELS: dict[str, Callable[[Path], Path]] = {
    "weights": lambda folder: save_tiny_model(folder, seed=1),
    "pooling": lambda folder: save_tiny_model(folder, pooling="mean"),
    "prompt": lambda folder: save_tiny_model(folder, passage_prompt="passage: "),
    "tokenizer": with_other_tokenizer,
}
CHUNKERS: dict[str, tuple[Chunker, ChunkEncoding]] = {
    "chunk size": (Chunker(TOKENIZER, tokens_max=64), "alone"),
    "overlap": (Chunker(TOKENIZER, overlap_tokens=16), "alone"),
    "encoding": (Chunker(TOKENIZER), "one-pass"),
}


def joined(model: str, chunker: Chunker, encoding: ChunkEncoding) -> str:
    return index_fingerprint(model, make_chunk_encoder(encoding, TOKENIZER).fingerprint(chunker.fingerprint))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> str:
    return model_fingerprint(save_tiny_model(tmp_path_factory.mktemp("models") / "ours"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, ours: str) -> dict[str, str]:
    """What differs in one thing, by what that is."""
    folder = tmp_path_factory.mktemp("models")
    made = {name: model_fingerprint(make(folder / name)) for name, make in MODELS.items()}
    found = {name: joined(model, Chunker(TOKENIZER), "alone") for name, model in made.items()}
    return found | {name: joined(ours, *other) for name, other in CHUNKERS.items()}


@pytest.mark.parametrize("kind", ["embedded", "remote", "server"])
async def test_opening_refuses_what_differs_in_one_thing(
    kind: str, tmp_path: Path, ours: str, others: dict[str, str]
) -> None:
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(running_owner(tmp_path)) if kind == "remote" else ""
        url = await stack.enter_async_context(qdrant_over_grpc()) if kind == "server" else ""

        async def open_it(fingerprint: str) -> VectorIndex:
            if kind == "embedded":
                return await EmbeddedIndex.open(tmp_path / "data", dimension=DIMENSION, fingerprint=fingerprint)
            if kind == "remote":
                return await RemoteIndex.connect(target, dimension=DIMENSION, fingerprint=fingerprint)
            return await ServerIndex.open(url, collection="c", dimension=DIMENSION, fingerprint=fingerprint)

        fingerprint = joined(ours, Chunker(TOKENIZER), "alone")
        await (await open_it(fingerprint)).close()
        assert len({fingerprint, *others.values()}) == 1 + len(MODELS) + len(CHUNKERS)
        for other in others.values():
            with pytest.raises(FingerprintMismatch) as refusal:
                await open_it(other)
            assert fingerprint in str(refusal.value)
            assert other in str(refusal.value)
        await (await open_it(fingerprint)).close()


async def test_a_writer_of_another_model_or_chunker_writes_nothing(tmp_path: Path, ours: str) -> None:
    fingerprint = joined(ours, Chunker(TOKENIZER), "alone")
    index = await EmbeddedIndex.open(tmp_path, dimension=DIMENSION, fingerprint=fingerprint)
    journal = await Journal.open()
    for model, chunker, encoding in [
        ("other", Chunker(TOKENIZER), "alone"),
        *((ours, *other) for other in CHUNKERS.values()),
    ]:
        encoder = FakeEncoder(dimension=DIMENSION, fingerprint=model)
        chunk_encoder = make_chunk_encoder(encoding, TOKENIZER)  # type: ignore[arg-type]
        ingestor = Ingestor(encoder, index, chunker, journal, chunk_encoder=chunk_encoder)
        with pytest.raises(FingerprintMismatch, match="would write to it"):
            await ingestor.ingest(make_document("d"))
    assert (await index.stats()).chunk_count == 0
    ours_alone = Ingestor(FakeEncoder(dimension=DIMENSION, fingerprint=ours), index, Chunker(TOKENIZER), journal)
    await ours_alone.ingest(make_document("d"))
    assert (await index.stats()).document_count == 1
    await index.close()
    await journal.close()
