"""Fitting fusion: material is what the product finds, the fit ranks better than either half, what it says is so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import EvaluationSet, load_evaluation_set
from encoder.evaluation.results import Chunks, EvaluationMode
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunk_encoding import ChunksAlone
from ingest.chunking import Chunker
from ingest.index.memory import MemoryIndex
from services.evaluation.evaluation import System, evaluate_set
from services.search.fusion import Features, FusionWeights
from services.search.fusion_fitting import fit
from services.search.fusion_material import CANDIDATES, Material, describe, gather
from tests.fakes import FakeEncoder
from tests.test_evaluation import CORPUS, QRELS, QUERIES
from tests.test_evaluation_datasets import SHIPPED, write_set

TOKENIZER = Tokenizer.load(DEFAULT_MODEL_FOLDER)


AVERAGE = Features(best_sparse=2.0, dense_gap=0.2)


def silent(what: str, done: int, total: int) -> None:
    assert done <= total


def system(fusion: FusionWeights | None = None) -> System:
    return System("fake", FakeEncoder(), TOKENIZER, Chunker(TOKENIZER), ChunksAlone(), Chunks.ALONE, fusion=fusion)


async def measure(found: EvaluationSet, measured: System) -> dict[EvaluationMode, float]:
    dimension, fingerprint = await measured.index_layout()
    index = MemoryIndex(dimension=dimension, fingerprint=fingerprint)
    modes = [EvaluationMode.DENSE, EvaluationMode.SPARSE, EvaluationMode.HYBRID]
    return {
        result.mode: result.metrics.mean("ndcg@10")
        async for result in evaluate_set(found, modes, measured, index, lambda *step: None)
    }


def made(seed: int, *, dense: float, sparse: float, queries: int = 60, chunks: int = 200) -> Material:
    """A set whose halves find the one relevant document through noise of these sizes."""
    drawn = np.random.default_rng(seed)
    embeddings = drawn.standard_normal((chunks, 16))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    answers = drawn.integers(0, chunks, queries)
    asked = embeddings[answers] + dense * drawn.standard_normal((queries, 16)) / 4
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    words = np.abs(sparse * drawn.standard_normal((queries, chunks)))
    words[np.arange(queries), answers] += 5
    best = np.argsort(-words, axis=1)[:, :CANDIDATES].astype(np.int32)
    return Material(
        np.arange(chunks, dtype=np.int32),
        embeddings.astype(np.float16),
        asked.astype(np.float32),
        best,
        np.take_along_axis(words, best, axis=1).astype(np.float32),
        np.stack([np.arange(queries), answers, np.ones(queries, np.int64)], axis=1).astype(np.int32),
    )


def test_a_fit_ranks_better_than_either_half_on_sets_that_it_has_not_seen() -> None:
    sets = {str(seed): made(seed, dense=1.2, sparse=2.0, queries=200) for seed in range(4)}
    fitted = fit(sets, 0.0, silent)
    for quality in fitted.sets.values():
        assert quality.hybrid_held_out is not None
        assert quality.hybrid_held_out > max(quality.dense, quality.sparse)
        assert quality.hybrid_held_out == pytest.approx(quality.hybrid, abs=0.03)


def test_words_count_more_the_better_they_are() -> None:
    better, worse = (
        fit({"one": made(1, dense=1.2, sparse=noise)}, 0.0, silent).weights.weight(AVERAGE, np.zeros(16))
        for noise in (1.5, 4.0)
    )
    assert better > 1.5 * worse > 0


def test_embeddings_are_blurred_until_they_are_no_better_than_words() -> None:
    sets = {str(seed): made(seed, dense=0.2, sparse=2.5, chunks=400) for seed in range(3)}
    sharp, blurred = fit(sets, 0.0, silent), fit(sets, None, silent)
    dense, sparse = (np.mean([getattr(found, name) for found in blurred.sets.values()]) for name in ("dense", "sparse"))
    assert blurred.blur > 0.3
    assert dense == pytest.approx(sparse, abs=0.05)
    assert np.mean([found.dense for found in sharp.sets.values()]) > dense + 0.1
    nothing = np.zeros(16)
    assert blurred.weights.weight(AVERAGE, nothing) > sharp.weights.weight(AVERAGE, nothing)
    assert fit({"one": made(1, dense=3, sparse=0.5)}, None, silent).blur == 0


def test_words_count_for_the_queries_that_they_answer() -> None:
    """Of two kinds of questions, told apart by their embeddings, words answer one and not the other."""
    answered, unanswered = made(1, dense=1.0, sparse=0.5), made(2, dense=1.0, sparse=6.0)
    towards = np.eye(16)[0]
    sets = {"answered": moved(answered, towards), "unanswered": moved(unanswered, -towards)}
    fitted = fit(sets, 0.0, silent)
    here, there = (fitted.weights.weight(AVERAGE, material.queries.mean(axis=0)) for material in sets.values())
    assert here > 2 * there
    blind = fitted.weights.model_copy(update={"query": ()})
    assert blind.weight(AVERAGE) == pytest.approx(fitted.weights.weight(AVERAGE, np.zeros(16)))


def moved(material: Material, towards: np.ndarray) -> Material:
    """The same set with all its texts moved."""
    embeddings, queries = (
        each / np.linalg.norm(each, axis=1, keepdims=True)
        for each in (material.embeddings + towards, material.queries + towards)
    )
    return replace(material, embeddings=embeddings.astype(np.float16), queries=queries.astype(np.float32))


def test_the_same_material_gives_the_same_weights() -> None:
    sets = {"one": made(1, dense=0.5, sparse=2)}
    assert fit(sets, None, silent) == fit(sets, None, silent)


def test_sets_without_an_answer_among_the_candidates_are_refused() -> None:
    material = made(1, dense=1, sparse=1)
    unanswered = Material(
        material.documents,
        material.embeddings,
        material.queries,
        material.sparse_chunks,
        material.sparse_scores,
        material.judged[:0],
    )
    with pytest.raises(InvalidInput, match="no query finds a relevant document"):
        fit({"one": unanswered}, 0.0, silent)


@pytest.mark.parametrize("source", ["animals", "shipped"])
async def test_what_is_fitted_is_what_the_product_ranks(tmp_path: Path, source: str) -> None:
    """nDCG@10 from material, by the fitted weights, is that of a search through the whole product."""
    found = load_evaluation_set(
        SHIPPED if source == "shipped" else write_set(tmp_path / "a", corpus=CORPUS, queries=QUERIES, qrels=QRELS)
    )
    fitted = fit({"set": await gather(found, system(), silent)}, 0.0, silent)
    searched = await measure(found, system(fitted.weights))
    quality = fitted.sets["set"]
    for mode in (EvaluationMode.DENSE, EvaluationMode.SPARSE, EvaluationMode.HYBRID):
        assert getattr(quality, mode.value) == pytest.approx(searched[mode], abs=2e-3), mode
    by_ranks = await measure(found, system())
    assert by_ranks[EvaluationMode.SPARSE] == searched[EvaluationMode.SPARSE]


async def test_material_is_kept_and_known_again(tmp_path: Path) -> None:
    found = load_evaluation_set(write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS))
    material = await gather(found, system(), silent)
    about = describe(found, "model")
    material.save(tmp_path / "kept" / "animals.npz", about)
    again = Material.load(tmp_path / "kept" / "animals.npz", about)
    assert again is not None
    for name in Material.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(material, name))
    assert (again.sparse_chunks[:, -1] == -1).all(), "no query's words are in a hundred chunks"
    assert again.judged.tolist() == [[0, 3, 1], [1, 0, 2], [1, 3, 1], [2, 1, 1]]

    assert Material.load(tmp_path / "kept" / "animals.npz", describe(found, "another model")) is None
    fewer = load_evaluation_set(
        write_set(tmp_path / "fewer", corpus=CORPUS, queries=QUERIES[:1], qrels="q1\twhales\t1\n")
    )
    assert Material.load(tmp_path / "kept" / "animals.npz", describe(fewer, "model")) is None
    assert Material.load(tmp_path / "kept" / "none.npz", about) is None


def test_a_broken_file_of_material_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK nothing of the kind")
    with pytest.raises(InvalidInput, match=r"a\.npz is broken"):
        Material.load(tmp_path / "a.npz", "about")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot be written"):
        made(1, dense=1, sparse=1).save(tmp_path / "file" / "a.npz", "about")
