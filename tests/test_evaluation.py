"""Evaluation through the product: judged queries, whole documents, one index for all modes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from encoder.errors import FingerprintMismatch, InvalidInput
from encoder.evaluation.datasets import EvaluationSet, load_evaluation_set
from encoder.evaluation.metrics import METRICS
from encoder.evaluation.results import Chunks, EvaluationMode
from encoder.interface import Encoded
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunk_encoding import ChunkEncoder, ChunksAlone, ChunksInOnePass
from ingest.chunking import Chunker
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.index.memory import MemoryIndex
from services.evaluation.evaluation import Evaluation, System, evaluate_set
from tests.fakes import FakeEncoder
from tests.test_evaluation_datasets import SHIPPED, write_set

TOKENIZER = Tokenizer.load(DEFAULT_MODEL_FOLDER)
# Two long documents and two short ones; each query names words of one document.
CORPUS = [
    {"_id": "whales", "text": "Whales sing to one another. " * 120 + "The narwhal has a tusk."},
    {"_id": "birds", "title": "Birds", "text": "Birds fly south in autumn. " * 120 + "The arctic tern flies farthest."},
    {"_id": "rocks", "text": "Granite is an igneous rock."},
    {"_id": "stars", "text": "Sirius is the brightest star."},
]
QUERIES = [
    {"_id": "q1", "text": "narwhal tusk"},
    {"_id": "q2", "text": "arctic tern"},
    {"_id": "q3", "text": "granite rock"},
    {"_id": "unjudged", "text": "nothing is known"},
]
QRELS = "q1\twhales\t1\nq2\tbirds\t2\nq2\twhales\t1\nq3\trocks\t1\n"


class CountingEncoder(FakeEncoder):
    passages = 0

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        self.passages += len(passages)
        return await super().encode_passages(passages)


async def evaluate(
    source: Path | EvaluationSet, data_dir: Path | None, encoder: FakeEncoder, chunk_encoder: ChunkEncoder | None = None
) -> list[Evaluation]:
    found = load_evaluation_set(source) if isinstance(source, Path) else source
    chunks = chunk_encoder or ChunksAlone()
    system = System("fake", encoder, TOKENIZER, Chunker(TOKENIZER), chunks, Chunks.ALONE)
    dimension, fingerprint = await system.index_layout()
    index: VectorIndex = MemoryIndex(dimension=dimension, fingerprint=fingerprint)
    if data_dir:
        index = await EmbeddedIndex.open(data_dir, dimension=dimension, fingerprint=fingerprint)
    steps: list[tuple[str, int, int]] = []
    try:
        results = [
            result
            async for result in evaluate_set(
                found, list(EvaluationMode), system, index, lambda *step: steps.append(step)
            )
        ]
    finally:
        await index.close()
    assert ("documents", len(found.documents), len(found.documents)) in steps
    assert ("dense queries", len(found.queries), len(found.queries)) in steps
    assert [result.mode for result in results] == list(EvaluationMode)
    return results


@pytest.mark.parametrize("kept", [True, False], ids=["engine", "memory"])
async def test_modes_share_an_index_and_documents_rank_by_their_best_chunk(tmp_path: Path, *, kept: bool) -> None:
    folder = write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS)
    encoder = CountingEncoder()
    data_dir = tmp_path / "data" if kept else None
    dense, sparse, hybrid, bm25s, rrf = await evaluate(folder, data_dir, encoder)
    for result in (dense, sparse, hybrid, bm25s, rrf):
        assert set(result.run) == {"q1", "q2", "q3"}
        for ranked in result.run.values():
            assert len({document.document_id for document in ranked}) == len(ranked)
    # The answers stand in the last of several chunks.
    for words in (sparse, bm25s):
        assert words.run["q1"][0].document_id == "whales"
        assert words.run["q2"][0].document_id == "birds"
        assert words.metrics.mean("mrr@10") == 1
        assert [document.document_id for document in words.run["q3"]] == ["rocks"]
    assert dense.metrics.mean("recall@100") == hybrid.metrics.mean("recall@100") == 1
    assert rrf.run["q3"][0].document_id == "rocks"
    assert rrf.run["q3"][0].score == pytest.approx(2 / 61)
    assert dense.tokens > 1000
    assert dense.encode_s > 0

    chunks = encoder.passages
    assert chunks > len(CORPUS)
    assert len(dense.run["q1"]) == 4  # every document, though two of them have most of the chunks
    if kept:
        await evaluate(folder, data_dir, encoder)
        assert encoder.passages == chunks  # a kept index is used again


async def test_the_index_in_memory_finds_what_the_engine_finds(tmp_path: Path) -> None:
    found = load_evaluation_set(SHIPPED)
    some = dict(list(found.queries.items())[:100])
    found = dataclasses.replace(found, queries=some, qrels={query_id: found.qrels[query_id] for query_id in some})
    in_engine = await evaluate(found, tmp_path / "data", FakeEncoder())
    in_memory = await evaluate(found, None, FakeEncoder())
    for engine, memory in zip(in_engine, in_memory, strict=True):
        for metric in METRICS:
            assert memory.metrics.mean(metric) == pytest.approx(engine.metrics.mean(metric), abs=0.01), engine.mode
        for query_id, ranked in engine.run.items():
            scores = {document.document_id: document.score for document in memory.run[query_id]}
            if engine.mode is EvaluationMode.DENSE:
                assert len(ranked) == len(scores) == 240
            # Fused scores come from ranks, and equals may stand in any order.
            if engine.mode not in (EvaluationMode.HYBRID, EvaluationMode.RRF):
                for document in ranked[:20]:
                    assert scores[document.document_id] == pytest.approx(document.score, abs=1e-4)


async def test_one_pass_reads_documents_and_another_index_is_not_taken(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS)
    encoder = CountingEncoder()
    await evaluate(folder, tmp_path / "data", encoder, ChunksInOnePass(TOKENIZER))
    assert encoder.passages == 0
    with pytest.raises(FingerprintMismatch, match="one-pass"):
        await evaluate(folder, tmp_path / "data", encoder)


async def test_what_lengthened_documents_share_is_read_once(tmp_path: Path) -> None:
    found = load_evaluation_set(write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS))
    once, each_time = CountingEncoder(), CountingEncoder()
    plain = await evaluate(found, None, each_time)
    lengthened = await evaluate(dataclasses.replace(found, length=1), None, once)
    assert [result.run for result in lengthened] == [result.run for result in plain]
    assert once.passages < each_time.passages


async def test_words_alone_need_no_embeddings(tmp_path: Path) -> None:
    found = load_evaluation_set(write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS))
    encoder = CountingEncoder()
    system = System("fake", encoder, TOKENIZER, Chunker(TOKENIZER), ChunksAlone(), Chunks.ALONE)
    dimension, fingerprint = await system.index_layout()
    index = MemoryIndex(dimension=dimension, fingerprint=fingerprint)
    (sparse,) = [
        result async for result in evaluate_set(found, [EvaluationMode.SPARSE], system, index, lambda *_: None)
    ]
    assert sparse.metrics.mean("mrr@10") == 1
    assert encoder.passages == 0


async def test_recall_looks_past_long_documents(tmp_path: Path) -> None:
    """One document of a thousand chunks that all match must not hide the others."""
    corpus = [{"_id": "long", "text": "whale song in the deep " * 45_000}]
    corpus += [{"_id": f"short{number}", "text": f"whale number {number} " * 3} for number in range(99)]
    folder = write_set(tmp_path / "set", corpus=corpus, queries=[{"_id": "q", "text": "whale"}], qrels="q\tlong\t1\n")
    results = await evaluate(folder, None, FakeEncoder())
    for result in results[:2]:
        assert len(result.run["q"]) == 100


async def test_an_index_of_other_documents_is_refused(tmp_path: Path) -> None:
    await evaluate(
        write_set(tmp_path / "a", corpus=CORPUS, queries=QUERIES, qrels=QRELS), tmp_path / "data", FakeEncoder()
    )
    other = write_set(tmp_path / "b")
    with pytest.raises(InvalidInput, match="the index holds 6 documents, but b has 2"):
        await evaluate(other, tmp_path / "data", FakeEncoder())
