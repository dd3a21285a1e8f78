"""`mamba-search fit-fusion`: a file beside the model, which searches then use."""

import json
from pathlib import Path

import pytest

from services import in_process
from services.cli.app import run
from services.search.fusion import FUSION_FILE, FusionWeights
from tests.test_evaluation import CORPUS, QRELS, QUERIES
from tests.test_evaluation_datasets import write_set
from tests.tiny_model import save_tiny_model


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    return save_tiny_model(tmp_path / "model")


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS)


def test_what_is_fitted_stands_beside_the_model_and_is_searched_with(
    tmp_path: Path, model: Path, animals: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = write_set(tmp_path / "more", corpus=CORPUS, queries=QUERIES, qrels=QRELS)
    command = ["fit-fusion", "--dataset", str(animals), "--dataset", str(more), "--model", str(model)]
    command += ["--material", str(tmp_path / "material")]
    assert run(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["animals", "more", "mean"]
    weights = FusionWeights.load(model)
    assert weights is not None
    numbers = ", ".join(f"{key} {value}" for key, value in weights if key != "query")
    assert lines[-1].endswith(f"fusion.json: {numbers}, and what a query's embedding says")

    # Nothing is encoded twice, and the same material gives the same weights.
    monkeypatch.setattr(in_process, "load_encoder", None)
    assert run([*command, "--out", str(tmp_path / "again.json")]) == 0
    assert (tmp_path / "again.json").read_text() == (model / FUSION_FILE).read_text()
    monkeypatch.undo()

    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    capsys.readouterr()
    evaluate = ["evaluate", "--dataset", str(animals), "--model", str(model)]
    run_of = {}
    for name, text in (("words", '{"intercept": 30, "best_sparse": 0, "dense_gap": 0}'), ("ranks", None)):
        (model / FUSION_FILE).unlink() if text is None else (model / FUSION_FILE).write_text(text)
        assert run([*evaluate, "--run-dir", str(tmp_path / name)]) == 0
        run_of[name] = (tmp_path / name / "animals.hybrid.trec").read_text().split()
    assert float(run_of["words"][4]) > 1e9
    assert float(run_of["ranks"][4]) < 0.04


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dataset", "{animals}", "--dataset", "{animals}"], "two datasets are called animals"),
        (["--dataset", "{animals}", "--model", "someone/something"], "give --out FILE"),
        (["--dataset", "{animals}", "--out", "{animals}/none/fusion.json"], "cannot be written"),
        (["--dataset", "{animals}", "--blur", "5"], "blur"),
    ],
)
def test_what_cannot_be_done_is_refused(
    model: Path, animals: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    given = [option.format(animals=animals) for option in options]
    assert run(["fit-fusion", *([] if "--model" in given else ["--model", str(model)]), *given]) != 0
    assert says in capsys.readouterr().err


def test_a_broken_file_is_told_before_the_model_is_loaded(
    model: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / FUSION_FILE).write_text(json.dumps({"intercept": 0}))
    assert run(["evaluate", "--dataset", str(animals), "--model", str(model)]) != 0
    assert "fusion.json: best_sparse is missing" in capsys.readouterr().err
