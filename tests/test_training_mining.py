"""Mining and fused rankings: what is found is right, what may answer the query is no negative."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.errors import CheckpointError, InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.progress import Report
from encoder.tokenizer import Tokenizer
from encoder.training.embedders import ModelEmbedder, TeacherEmbedder
from encoder.training.examples import TrainingSet, open_set
from encoder.training.mining import Mined, choose, find_near
from encoder.training.mining_config import MiningConfig
from encoder.training.mining_run import shares
from encoder.training.nearest import Embedder, nearest
from encoder.training.rankings import Method, fuse, targets
from encoder.training.rows import Ids
from encoder.training.sampling import PairShape, pair_batch
from encoder.training.teacher_rules import ReadingRules, TeacherInput, TeacherRules
from encoder.training.units import Units
from services.cli.app import run as run_command
from tests.tiny_model import save_tiny_model
from tests.training_sets import made_set, prepared, write_rows

CPU = torch.device("cpu")
TOPICS = ("apples", "ships", "snow", "engines", "violins", "bridges")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(DEFAULT_MODEL_FOLDER)


class WordEmbedder:
    """Counts words: texts that share words are near one another."""

    dimension = 30522

    def embed_queries(self, queries: Sequence[Ids]) -> NDArray[np.float32]:
        return self.embed_passages(queries)

    def embed_passages(self, passages: Sequence[Ids]) -> NDArray[np.float32]:
        counts = np.stack([np.bincount(ids, minlength=self.dimension) for ids in passages]).astype(np.float32)
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True))


def facts(tmp_path: Path, **settings: object) -> TrainingSet:
    """For each topic a query, its answer, a near duplicate of it, a text beside it and another part of its document."""
    rows: list[dict[str, object]] = []
    for topic in TOPICS:
        answer = f"what everyone should know about {topic} is written here"
        rows += [
            {"query": f"what should everyone know about {topic}", "positive": answer, "doc_id": topic},
            {"query": f"filler {topic} one", "positive": f"{answer} indeed", "doc_id": f"{topic} again"},
            {
                "query": f"filler {topic} two",
                "positive": f"stories told of {topic} and of kings",
                "doc_id": f"{topic} b",
            },
            {"query": f"filler {topic} three", "positive": f"more parts about {topic} elsewhere", "doc_id": topic},
        ]
    return prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "a.jsonl", rows), **settings)


def mine(
    found: TrainingSet,
    tokenizer: Tokenizer,
    embedders: dict[str, Embedder],
    config: MiningConfig,
    report: Report = lambda *_: None,
) -> Mined:
    """Both parts of mining, in this process."""
    with tempfile.TemporaryDirectory(dir=found.folder) as work:
        near = find_near(found, embedders, config, CPU, Path(work), report)
        return choose(found, tokenizer, near, config, report)


def run(found: TrainingSet, tokenizer: Tokenizer, **settings: object) -> tuple[TrainingSet, Mined]:
    config = MiningConfig.model_validate({"candidates": 24, "negatives": 20} | settings)
    told: list[tuple[str, int, int]] = []
    mined = mine(found, tokenizer, {"words": WordEmbedder()}, config, lambda *step: told.append(step))
    assert {"words passages", "words queries", "words nearest", "candidates"} <= {what for what, _, _ in told}
    return open_set(found.folder, mined=True), mined


def spelled(found: TrainingSet, tokenizer: Tokenizer, numbers: NDArray[np.integer]) -> set[str]:
    return {tokenizer.decode(found.passages[int(number)].tolist()) for number in numbers}


def test_near_duplicates_and_parts_of_the_document_are_no_negatives(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found, mined = run(facts(tmp_path), tokenizer, relative_max=0.9)
    assert mined.queries == 4 * len(TOPICS)
    assert mined.false_negatives > 0.2
    for number, topic in enumerate(TOPICS):
        query = 4 * number
        negatives = spelled(found, tokenizer, found.groups.negatives[query])
        assert f"stories told of {topic} and of kings" in negatives
        assert f"what everyone should know about {topic} is written here indeed" not in negatives
        assert f"more parts about {topic} elsewhere" not in negatives
        assert not set(found.groups.negatives[query]) & set(found.groups.positives[query])
    again, _ = run(found, tokenizer, same_document=True, relative_max=0.9)
    assert "more parts about ships elsewhere" in spelled(again, tokenizer, again.groups.negatives[4])


def test_margins_are_kept_and_scores_stand_beside(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found, _ = run(facts(tmp_path), tokenizer, margin=0.4, relative_max=1.0)
    embed = WordEmbedder().embed_passages
    kept = 0
    for query in range(len(found.queries)):
        positives, negatives = found.groups.positives[query], found.groups.negatives[query]
        asked = embed([found.queries[query]])[0]
        worst = min(embed([found.passages[number]])[0] @ asked for number in positives)
        for number in negatives:
            assert embed([found.passages[number]])[0] @ asked < worst - 0.4 + 1e-3
            kept += 1
        candidates, scores = found.groups.candidates, found.groups.candidate_scores
        assert candidates is not None
        assert scores is not None
        assert candidates[query][: len(positives)].tolist() == positives.tolist()
        assert len(set(candidates[query].tolist())) == len(candidates[query]) == len(scores[query])
    assert kept > 20


def test_what_was_mined_is_drawn(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found, _ = run(facts(tmp_path), tokenizer, relative_max=0.9)
    shape = PairShape(4, (32,), (32,), negatives=1)
    own = others = 0
    for step in range(12):
        batch = pair_batch(found, shape, 0, step, 0)
        for query, (_, negative) in zip(batch.query_numbers, batch.passage_numbers.reshape(4, 2), strict=True):
            if negative in found.groups.negatives[query]:
                own += 1
            else:
                others += 1
                assert not len(found.groups.negatives[query])
    assert own > others


def test_documents_are_found_by_their_best_chunk(tmp_path: Path, tokenizer: Tokenizer) -> None:
    filler = "Nothing of note happens in this part of the text, and nobody says a word. " * 25
    documents = [{"doc_id": topic, "text": f"{filler}\n\nAt last come {topic}. {filler}"} for topic in TOPICS]
    write_rows(tmp_path / "a.docs.jsonl", documents)
    rows = [{"query": f"{topic}", "doc_id": topic} for topic in TOPICS]
    source = prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "a.jsonl", rows))
    found, mined = run(source, tokenizer, candidates=3)
    assert mined.positives_first == 1
    assert found.groups.candidates is not None
    for query in range(len(TOPICS)):
        assert found.groups.candidates[query][0] == query


def test_the_model_itself_finds_candidates(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = save_tiny_model(tmp_path / "model")
    embedder = ModelEmbedder.load(folder, tokenizer, tokens_max=64, device=torch.device("cpu"))
    source = facts(tmp_path)
    embedded = embedder.embed_passages([source.passages[number] for number in range(len(source.passages))])
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=2e-2)
    long = np.arange(1000, 1600)
    np.testing.assert_allclose(embedder.embed_passages([long]), embedder.embed_passages([long[:64]]), atol=1e-3)
    config = MiningConfig(candidates=4, negatives=2, bm25=False)
    mined = mine(source, tokenizer, {"model": embedder}, config)
    assert mined.queries == 24
    assert mined.candidates >= 4
    strange = tokenizer_of_another_model(tmp_path)
    with pytest.raises(CheckpointError, match="has another tokenizer than the training set"):
        ModelEmbedder.load(folder, strange, tokens_max=64, device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ["shared ids", "text"])
def test_a_teacher_embeds_texts_of_any_length_in_their_order(
    tokenizer: Tokenizer, kind: Literal["shared ids", "text"]
) -> None:
    rules = TeacherRules((ReadingRules(kind, DEFAULT_MODEL_FOLDER, tokens_max=20, start_id=101, end_id=102),))

    class Counting:
        """Embeds a text as the number of its first and of its last word."""

        dimension = 2
        word_embeddings: torch.Tensor | None = None
        shared: int | None = None

        def embed(self, texts: TeacherInput) -> torch.Tensor:
            (reading,) = texts
            if isinstance(reading, list):
                found = [[tokenizer.encode(text)[0], tokenizer.encode(text)[-1]] for text in reading]
            else:
                ends = zip(reading.tokens.tolist(), reading.ends.tolist(), strict=True)
                found = [[row[1], row[end - 1]] for row, end in ends]
            return torch.tensor(found, dtype=torch.float32)

    embedder = TeacherEmbedder(Counting(), rules, CPU)
    texts = [np.array(tokenizer.encode(" ".join(["ship"] * (7 * n % 11 + 1) + ["snow"]))) for n in range(700)]
    ship, snow = tokenizer.encode("ship snow")
    assert embedder.embed_queries(texts).tolist() == [[ship, snow]] * 700
    long = np.array(tokenizer.encode("snow " + "ship " * 60 + "snow"))
    assert embedder.embed_passages([texts[0], long]).tolist() == [[ship, snow], [snow, ship]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tokenizer_of_another_model(tmp_path: Path) -> Tokenizer:
    path = tmp_path / "tokenizer.json"
    path.write_bytes((DEFAULT_MODEL_FOLDER / "tokenizer.json").read_bytes() + b"\n")
    return Tokenizer.load_file(path)


def test_mining_without_queries_or_without_a_ranker_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "t.jsonl", [{"text": "Alone."}]))
    with pytest.raises(InvalidInput, match="has no query with a positive; nothing to mine"):
        mine(texts, tokenizer, {}, MiningConfig())
    with pytest.raises(InvalidInput, match="bm25 is false and there is no model to mine with"):
        mine(facts(tmp_path), tokenizer, {}, MiningConfig(bm25=False))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_blocks_find_what_one_product_finds(counts: list[int], k: int, at_once: int, seed: int) -> None:
    counts[0] = max(counts[0], 1)
    rng = np.random.default_rng(seed)
    found = made_set(
        [[1]], [[5] * count for count in counts], [[0]], chunk_ends=[list(range(1, count + 1)) for count in counts]
    )
    units = Units.of(found)
    embeddings = rng.standard_normal((len(units), 4)).astype(np.float16)
    queries = rng.standard_normal((5, 4)).astype(np.float16)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("encoder.training.nearest._UNITS_AT_ONCE", at_once)
        patched.setattr("encoder.training.nearest._QUERIES_AT_ONCE", 2)
        near = nearest(queries, embeddings, units, k, CPU, lambda *_: None)
    for query, numbers, scores in zip(queries, near.numbers, near.scores, strict=True):
        whole = units.best(embeddings.astype(np.float32) @ query.astype(np.float32))
        expected = np.sort(whole)[::-1][: len(scores)]
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        there = np.isfinite(scores)
        np.testing.assert_allclose(whole[numbers[there]], scores[there], atol=1e-5)
        assert len(set(numbers[there].tolist())) == there.sum()


def test_sets_are_shared_out_by_their_size() -> None:
    sets = [made_set([[1]], [[5] * count], [[0]]) for count in (9, 1, 4, 3, 6)]
    found = [[len(each.passages.values) for each in share] for share in shares(sets, 2)]
    assert found == [[9, 3], [6, 4, 1]]
    assert shares(sets[:1], 3) == [[sets[0]], [], []]


def test_reciprocal_ranks_add_up() -> None:
    words, meaning = np.array([[9.0, 5.0, 1.0]], np.float32), np.array([[0.1, 0.9, 0.5]], np.float32)
    fused = fuse([words, meaning], "rrf")
    np.testing.assert_allclose(fused, [[1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]], rtol=1e-6)
    weighted = fuse([words, meaning], "rrf", [2.0, 0.0])
    np.testing.assert_allclose(weighted, [[2 / 61, 2 / 62, 2 / 63]], rtol=1e-6)
    equal = fuse([np.array([[1.0, 1.0, 0.0]], np.float32)], "rrf")
    np.testing.assert_allclose(equal, [[1 / 61.5, 1 / 61.5, 1 / 63]], rtol=1e-6)


def test_standard_scores_know_no_scale() -> None:
    one, other = np.array([[1.0, 2.0, 3.0]], np.float32), np.array([[300.0, 100.0, 200.0]], np.float32)
    np.testing.assert_allclose(fuse([one, other], "zscore"), fuse([one * 50 + 3, other / 7], "zscore"), atol=1e-5)
    np.testing.assert_allclose(fuse([one, np.ones_like(one)], "zscore"), fuse([one], "zscore"), atol=1e-6)


@pytest.mark.parametrize("method", ["rrf", "zscore"])
def test_missing_candidates_stay_missing(method: Method) -> None:
    scores = np.array([[3.0, -np.inf, 1.0], [2.0, 1.0, 0.0]], np.float32)
    fused = fuse([scores, np.nan_to_num(scores, neginf=0)], method)
    assert np.isneginf(fused[0, 1])
    assert np.isfinite(np.delete(fused.ravel(), 1)).all()
    weights = targets(fused, 0.1)
    assert weights[0, 1] == 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    assert weights[0, 0] > weights[0, 2]


def test_rankings_that_do_not_agree_are_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be fused"):
        fuse([np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)], "rrf")
    with pytest.raises(InvalidInput, match="with 2 weights cannot be fused"):
        fuse([np.zeros((1, 2), np.float32)], "rrf", [1.0, 2.0])


def test_the_command_mines_what_the_configuration_marks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer
) -> None:
    facts(tmp_path)
    model = save_tiny_model(tmp_path / "model")
    settings = tmp_path / "run.toml"
    settings.write_text(
        f"""
        out = "{tmp_path / "out"}"
        cache = "{tmp_path / "cache"}"
        processes = 1
        device = "cpu"
        [model]
        start = "{model}"
        [optimizer]
        learning_rate = 1e-3
        [run]
        steps = 1
        [mining]
        candidates = 5
        negatives = 3
        [[sources]]
        name = "facts"
        format = "jsonl"
        path = "{tmp_path / "a.jsonl"}"
        mined = true
        [[tasks]]
        kind = "pairs"
        batch_size = 2
        """
    )
    assert run_command(["mine", str(settings), "--json", "--set", "mining.negatives=2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["source"], told["queries"]) == ("facts", 24)
    found = prepared(tmp_path / "cache", format="jsonl", path=tmp_path / "a.jsonl", mined=True)
    assert found.groups.negatives.lengths.max() == 2
    assert run_command(["mine", str(settings)]) == 0
    assert capsys.readouterr().out.startswith("facts: 24 queries, of each ")
    # The same as in one process, and nothing is left behind.
    by_command = contents(found.folder / "mined")
    embedder = ModelEmbedder.load(model, tokenizer, tokens_max=512, device=CPU)
    config = MiningConfig(candidates=5, negatives=3)
    mine(open_set(found.folder), tokenizer, {"model": embedder}, config)
    assert contents(found.folder / "mined") == by_command
    assert not list(found.folder.glob("mining-*"))
    settings.write_text(settings.read_text().replace("mined = true", "mined = false"))
    assert run_command(["mine", str(settings)]) != 0
    assert "no source of the configuration has mined = true" in capsys.readouterr().err
