"""Evaluation through the product: judged queries, whole documents, one index for all modes."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import load_evaluation_set
from encoder.interface import Encoded
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from services.cli.app import run
from services.evaluation import Evaluation, evaluate_set
from services.in_process import open_parts
from services.results import SearchMode
from tests.fakes import FakeEncoder
from tests.test_evaluation_datasets import write_set
from tests.tiny_model import save_tiny_model

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


async def evaluate(folder: Path, data_dir: Path, encoder: FakeEncoder) -> list[Evaluation]:
    found = load_evaluation_set(folder)
    async with open_parts(data_dir, encoder, TOKENIZER) as parts:
        steps: list[tuple[str, int, int]] = []
        results = [
            result async for result in evaluate_set(found, list(SearchMode), parts, lambda *step: steps.append(step))
        ]
    assert ("documents", len(found.documents), len(found.documents)) in steps
    assert ("dense queries", len(found.queries), len(found.queries)) in steps
    return results


async def test_modes_share_an_index_and_documents_rank_by_their_best_chunk(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS)
    encoder = CountingEncoder()
    dense, sparse, hybrid = await evaluate(folder, tmp_path / "data", encoder)
    assert [result.mode for result in (dense, sparse, hybrid)] == list(SearchMode)
    for result in (dense, sparse, hybrid):
        assert (result.dataset, result.documents, result.queries) == ("animals", 4, 3)
        assert set(result.run) == {"q1", "q2", "q3"}
        for ranked in result.run.values():
            assert len({document.document_id for document in ranked}) == len(ranked)
    # The answers stand in the last of several chunks.
    assert sparse.run["q1"][0].document_id == "whales"
    assert sparse.run["q2"][0].document_id == "birds"
    assert sparse.metrics.mrr_at_10 == 1
    assert dense.metrics.recall_at_100 == hybrid.metrics.recall_at_100 == 1
    assert [document.document_id for document in sparse.run["q3"]] == ["rocks"]

    chunks = encoder.passages
    assert chunks > len(CORPUS)
    assert len(dense.run["q1"]) == 4  # every document, though two of them have most of the chunks
    await evaluate(folder, tmp_path / "data", encoder)
    assert encoder.passages == chunks  # a kept index is used again


async def test_recall_looks_past_long_documents(tmp_path: Path) -> None:
    """One document of a thousand chunks that all match must not hide the others."""
    corpus = [{"_id": "long", "text": "whale song in the deep " * 45_000}]
    corpus += [{"_id": f"short{number}", "text": f"whale number {number} " * 3} for number in range(99)]
    folder = write_set(tmp_path / "set", corpus=corpus, queries=[{"_id": "q", "text": "whale"}], qrels="q\tlong\t1\n")
    _, sparse, _ = await evaluate(folder, tmp_path / "data", FakeEncoder())
    assert len(sparse.run["q"]) == 100


async def test_an_index_of_other_documents_is_refused(tmp_path: Path) -> None:
    await evaluate(
        write_set(tmp_path / "a", corpus=CORPUS, queries=QUERIES, qrels=QRELS), tmp_path / "data", FakeEncoder()
    )
    other = write_set(tmp_path / "b")
    with pytest.raises(InvalidInput, match="the index holds 6 documents, but b has 2"):
        await evaluate(other, tmp_path / "data", FakeEncoder())


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    return save_tiny_model(tmp_path / "model")


def test_the_command_prints_one_json_object_per_set_and_mode(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    animals = write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS)
    tiny = write_set(tmp_path / "tiny")
    arguments = ["evaluate", "--dataset", str(animals), "--dataset", str(tiny), "--mode", "dense", "--mode", "sparse"]
    assert run([*arguments, "--json", "--model", str(model)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["dataset"], row["mode"]) for row in rows] == [
        ("animals", "dense"),
        ("animals", "sparse"),
        ("tiny", "dense"),
        ("tiny", "sparse"),
    ]
    for row in rows:
        assert list(row) == ["dataset", "mode", "documents", "queries", "ndcg@10", "recall@100", "mrr@10", "seconds"]
    assert (rows[1]["documents"], rows[1]["queries"], rows[1]["mrr@10"]) == (4, 3, 1)


def test_the_command_writes_a_run_and_keeps_the_index(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    animals = write_set(tmp_path / "animals", corpus=CORPUS, queries=QUERIES, qrels=QRELS)
    arguments = ["evaluate", "--dataset", str(animals), "--mode", "sparse", "--model", str(model)]
    run_file, data_dir = tmp_path / "run.txt", tmp_path / "data"
    assert run([*arguments, "--run-file", str(run_file), "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out.startswith("animals              sparse  nDCG@10 0.9201  recall@100 0.8333")
    rows = [line.split() for line in run_file.read_text().splitlines()]
    assert rows[0][:4] + rows[0][5:] == ["q1", "Q0", "whales", "1", "mamba-search-sparse"]
    assert (data_dir / "animals").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "{missing}"], "missing is not a folder; give one in BEIR layout"),
        (["--dataset", "{set}", "--mode", "sparse", "--mode", "dense", "--run-file", "r"], "--run-file holds one run"),
        ([], "Missing option '--dataset'"),
        (["--dataset", "{set}", "--mode", "fuzzy"], "'fuzzy' is not one of"),
    ],
)
def test_wrong_calls_are_refused(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"set": write_set(tmp_path / "set"), "missing": tmp_path / "missing"}
    assert run(["evaluate", *(argument.format_map(places) for argument in arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1
