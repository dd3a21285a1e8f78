"""The paper's experiments on tiny models: runs differ in what they say, and what is measured is what it is called."""

import json
from pathlib import Path

import numpy as np
import pytest

from encoder.checkpoint import build_empty
from encoder.evaluation.results import Chunks
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from tests.benchmarks.experiments import length, needle, plots, speed
from tests.benchmarks.experiments.needle import Text
from tests.benchmarks.experiments.quality import score_documents
from tests.benchmarks.experiments.reading import read_whole
from tests.benchmarks.experiments.runs import DEFAULT_RUNS, RUNS, config_of
from tests.test_transformer import TRANSFORMER
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), name="tiny-mamba")


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("transformer"), name="tiny-transformer", **TRANSFORMER)


def write_set(path: Path) -> Path:
    path.mkdir()
    texts = [f"Text {n} is about the number {n}. " + "It goes on and on. " * 20 for n in range(8)]
    rows = [{"_id": f"d{n}", "title": f"Number {n}", "text": text} for n, text in enumerate(texts)]
    (path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = [{"_id": f"q{n}", "text": f"what about {n}?"} for n in range(4)]
    (path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (path / "qrels.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(4)))
    return path


def test_runs_differ_in_the_model_alone_and_those_compared_have_one_size() -> None:
    configs = {name: config_of(name, Path("runs"), []) for name in RUNS}
    rest = [config.model_dump(exclude={"out": True, "model": {"fresh"}}) for config in configs.values()]
    assert all(each == rest[0] for each in rest)
    assert len({config.out for config in configs.values()}) == len(RUNS)
    sizes = {}
    for name, config in configs.items():
        assert config.model.fresh is not None
        sizes[name] = sum(parameter.numel() for parameter in build_empty(config.model.fresh).parameters())
    assert list(DEFAULT_RUNS)[4:] == ["mamba-8m", "mamba-60m", "mamba-mean", "transformer-eos"]
    assert sizes.pop("mamba-8m") == pytest.approx(8e6, rel=0.02)
    assert sizes.pop("mamba-60m") == pytest.approx(60e6, rel=0.02)
    assert all(size == pytest.approx(27e6, rel=0.01) for size in sizes.values())
    with pytest.raises(SystemExit, match="the runs are mamba, transformer"):
        config_of("gru", Path("runs"), [])


def test_documents_read_side_by_side_embed_as_each_alone(folder: Path) -> None:
    encoder = TextEncoder.load(folder, device="cpu")
    generator = np.random.default_rng(0)
    documents = [(generator.integers(1000, 2000, size), np.array([size // 3, size])) for size in (40, 700, 1300)]
    for document, found in zip(documents, read_whole(encoder, documents, Chunks.ONE_PASS), strict=True):
        expected = encoder.open_document().read(*document)
        assert (found * expected).sum(1).min() > 0.999
    for (ids, _), found in zip(documents, read_whole(encoder, documents, Chunks.DOCUMENT), strict=True):
        expected = encoder.open_document().read(ids, [len(ids)])
        assert (found * expected).sum(1).min() > 0.999


def test_a_needle_stands_at_its_depth_in_text_of_the_length() -> None:
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    haystack = [Text.of(f"Hay of sort {n}. " * 30, tokenizer) for n in range(3)]
    found = needle.choose_needles(tokenizer, 2, 0)[0]
    assert len(found.questions) > 1
    for depth in (0.0, 0.5, 1.0):
        ids, ends = needle.build(found, haystack, 1000, depth, np.random.default_rng(0))
        assert len(ids) == ends[-1] == 1000
        assert (np.diff([0, *ends]) > 0).all()
        assert np.diff([0, *ends]).max() <= 256
        start = round(depth * (1000 - len(found.paragraph.ids)))
        assert (ids[start : start + len(found.paragraph.ids)] == found.paragraph.ids).all()
        text = tokenizer.decode(np.delete(ids, slice(start, start + len(found.paragraph.ids))).tolist())
        assert text.startswith("hay of sort")


def test_a_document_scores_as_its_best_vector() -> None:
    vectors = np.eye(3, dtype=np.float32)
    scores = score_documents(vectors[:2], vectors, [2, 1])
    assert scores.tolist() == [[1, 0], [1, 0]]


def test_every_experiment_writes_lines_that_become_plots(folder: Path, transformer: Path, tmp_path: Path) -> None:
    found, results = write_set(tmp_path / "numbers"), tmp_path / "lines.jsonl"
    models = ["--model", str(folder), "--model", str(transformer), "--results", str(results)]
    assert length.main([*models, "--dataset", str(found), "--lengths", "300", "600"]) == 0
    sizes = ["--documents", "2", "--lengths", "400", "--depths", "0", "1"]
    assert needle.main([*models, "--haystack", str(found), *sizes]) == 0
    small = ["--lengths", "64", "128", "--tokens", "128", "--rounds", "1", "--device", "cpu"]
    assert speed.main(["--models", str(folder), str(transformer), "--results", str(results), *small]) == 0
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    kinds = [(row["experiment"], row.get("model"), row.get("way")) for row in rows]
    for experiment in ("length", "needle"):
        ways = {
            model: [way for each, name, way in kinds if (each, name) == (experiment, model)] for _, model, _ in kinds
        }
        assert ways["tiny-mamba"] == ["alone", "one-pass", "document"] * 2
        assert ways["tiny-transformer"] == ["alone", "document"] * 2
    assert all(0 <= row.get("ndcg@10", row.get("accuracy@1", 0)) <= 1 for row in rows)
    assert [row["system"] for row in rows if row["experiment"] == "speed"] == ["mamba", "transformer"] * 2
    run = {"experiment": "runs", "dataset": "numbers", "seed": 0, "ndcg@10": 0.5, "interval": [0.4, 0.6]}
    lines = [run | {"run": name, "parameters": 10**number} for number, name in enumerate(DEFAULT_RUNS)]
    with results.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    assert plots.main([str(results), "--out", str(tmp_path / "plots")]) == 0
    drawn = {path.name: path.read_text() for path in (tmp_path / "plots").iterdir()}
    assert sorted(drawn) == [f"paper-{name}.svg" for name in ("length", "needle", "quality", "size", "speed")]
    assert "without selection" in drawn["paper-quality.svg"]
    assert "tiny-transformer" in drawn["paper-needle.svg"]
