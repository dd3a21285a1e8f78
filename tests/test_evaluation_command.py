"""`mamba-search evaluate`: its lines, its files, what it refuses."""

import json
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from encoder.evaluation.results import read_results
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer
from services.cli.app import run
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


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_json_object_per_set_and_mode(
    tmp_path: Path, model: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = write_set(tmp_path / "tiny")
    modes = [word for mode in ("dense", "sparse", "bm25s", "rrf") for word in ("--mode", mode)]
    arguments = ["evaluate", "--dataset", str(animals), "--dataset", str(tiny), *modes]
    assert run([*arguments, "--json", "--model", str(model), "--system", "ours"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "results.jsonl").write_text(text)
    results = read_results([tmp_path / "results.jsonl"])
    assert [(result.dataset, result.mode.value) for result in results] == [
        (name, mode) for name in ("animals", "tiny") for mode in ("dense", "sparse", "bm25s", "rrf")
    ]
    dense, sparse = results[:2]
    assert (dense.system, dense.chunks, dense.documents, dense.queries) == ("ours", "alone", 4, 3)
    assert dense.parameters
    assert dense.tokens_per_s
    assert sparse.mrr_at_10 == 1
    low, high = sparse.intervals["ndcg@10"]
    assert low <= sparse.ndcg_at_10 <= high < 1.0001
    assert {"ndcg@10", "mrr@10", "recall@10", "recall@100"} <= json.loads(text.splitlines()[0]).keys()


def test_runs_are_written_and_compared_with(
    tmp_path: Path, model: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--dataset", str(animals), "--mode", "sparse", "--model", str(model)]
    runs = tmp_path / "runs"
    assert run([*arguments, "--run-dir", str(runs)]) == 0
    assert capsys.readouterr().out.startswith("animals              sparse  nDCG@10 0.9201 [")
    rows = [line.split() for line in (runs / "animals.sparse.trec").read_text().splitlines()]
    assert rows[0][:4] + rows[0][5:] == ["q1", "Q0", "whales", "1", "tiny"]

    (tmp_path / "worse.trec").write_text("q1 Q0 rocks 1 1.0 t\nq2 Q0 birds 1 1.0 t\nq3 Q0 stars 1 1.0 t\n")
    assert run([*arguments, "--baseline", str(runs), "--json"]) == 0
    assert run([*arguments, "--baseline", str(tmp_path / "worse.trec"), "--json"]) == 0
    same, better = lines(capsys)
    assert same["baseline"] == "animals.sparse"
    assert same["differences"]["ndcg@10"] == {
        "mean": 0, "low": 0, "high": 0, "p_bootstrap": 1, "p_randomization": 1, "significant": False,
    }  # fmt: skip
    assert better["differences"]["mrr@10"]["mean"] == pytest.approx(2 / 3, abs=1e-4)
    assert not better["differences"]["mrr@10"]["significant"]  # three queries cannot tell
    assert run([*arguments, "--baseline", str(tmp_path / "worse.trec")]) == 0
    assert "not significant" in capsys.readouterr().out


def test_metrics_of_queries_and_candidates_with_scores(
    tmp_path: Path, model: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--per-query", str(tmp_path / "q.jsonl"), "--candidates", str(tmp_path / "c.jsonl")]
    assert (
        run(["evaluate", "--dataset", str(animals), "--mode", "hybrid", "--model", str(model), "--json", *files]) == 0
    )
    shown = {row["mode"]: row for row in lines(capsys)}
    assert set(shown) == {"dense", "sparse", "hybrid"}  # candidates are of both parts
    queries = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert [(row["mode"], row["query_id"]) for row in queries[:4]] == [
        ("dense", "q1"), ("dense", "q2"), ("dense", "q3"), ("sparse", "q1"),
    ]  # fmt: skip
    mean = sum(row["ndcg@10"] for row in queries if row["mode"] == "sparse") / 3
    assert mean == pytest.approx(shown["sparse"]["ndcg@10"], abs=1e-4)
    candidates = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [(row["query_id"], row["query"]) for row in candidates] == [
        ("q1", "narwhal tusk"), ("q2", "arctic tern"), ("q3", "granite rock"),
    ]  # fmt: skip
    documents = {row["document_id"]: row for row in candidates[2]["documents"]}
    assert set(documents) == {"whales", "birds", "rocks", "stars"}
    assert documents["rocks"]["sparse_rank"] == 1
    assert documents["rocks"]["sparse_score"] > 0
    assert -1 <= documents["rocks"]["dense_score"] <= 1
    assert documents["rocks"]["grade"] == 1
    assert (documents["stars"]["sparse_rank"], documents["stars"]["sparse_score"]) == (None, None)
    assert sorted(row["dense_rank"] for row in documents.values()) == [1, 2, 3, 4]


@pytest.mark.parametrize("chunks", ["one-pass", "document"])
def test_documents_in_one_pass_and_lengthened(
    chunks: str, model: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--dataset", str(animals), "--mode", "dense", "--model", str(model), "--chunks", chunks]
    assert run([*arguments, "--length", "64", "--length", "1500", "--json"]) == 0
    short, long = lines(capsys)
    assert (short["chunks"], short["length"], long["length"]) == (chunks, 64, 1500)
    assert (short["documents"], short["queries"]) == (long["documents"], long["queries"]) == (3, 3)
    # Two documents of some 800 tokens stay as they are, or are lengthened; the third is short.
    assert short["tokens"] < long["tokens"]
    assert 3 * 1500 < long["tokens"] < 3 * 1500 + 40


def test_an_index_is_kept_per_set(tmp_path: Path, model: Path, animals: Path) -> None:
    arguments = ["evaluate", "--dataset", str(animals), "--mode", "sparse", "--model", str(model)]
    assert run([*arguments, "--data-dir", str(tmp_path / "data")]) == 0
    assert (tmp_path / "data" / "animals").is_dir()


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A tiny BERT as sentence-transformers writes it, with a limit of its own that is under its positions."""
    size = Tokenizer.load(DEFAULT_MODEL_FOLDER).vocabulary_size
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    base, folder = tmp_path / "base", tmp_path / "bert"
    BertModel(config).save_pretrained(base)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_file=str(DEFAULT_MODEL_FOLDER / TOKENIZER_FILE), **special).save_pretrained(base)
    model = SentenceTransformer(modules=[Transformer(str(base), max_seq_length=64), Pooling(32, "mean")], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def test_models_of_sentence_transformers_are_measured_alike(
    bert: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--dataset", str(animals), "--mode", "dense", "--sentence-transformers", str(bert)]
    assert run([*arguments, "--chunk-tokens", "50", "--json"]) == 0
    (row,) = lines(capsys)
    assert (row["system"], row["mode"]) == ("bert", "dense")
    assert row["recall@100"] == 1
    assert row["parameters"] > 30_000
    # Nothing is cut off silently: what the model cannot read is refused.
    assert run([*arguments, "--chunk-tokens", "250"]) == 6
    assert "reads passages of up to 128 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "{missing}"], "missing is not a folder; give one in BEIR layout"),
        ([], "Missing option '--dataset'"),
        (["--dataset", "{set}", "--mode", "fuzzy"], "'fuzzy' is not one of"),
        (["--dataset", "{set}", "--chunks", "document"], "leaves no chunks to find by their words; give --mode dense"),
        (["--dataset", "{set}", "--model", "m", "--sentence-transformers", "s"], "exclude each other"),
        (["--dataset", "{set}", "--chunks", "one-pass", "--sentence-transformers", "s"], "needs a model of ours"),
        (["--dataset", "{set}", "--dataset", "{set}"], "two datasets are called set"),
        (["--dataset", "{set}", "--baseline", "{missing}"], "neither a TREC run nor a folder of runs"),
        (["--dataset", "{set}", "--per-query", "{missing}/q"], "cannot be written"),
        (["--dataset", "{set}", "--run-dir", "{set}/corpus.jsonl/runs"], "cannot be made"),
        (["--dataset", "{set}", "--length", "8"], "length is 8 tokens; 64 to 1048576 are allowed"),
        (["--dataset", "{set}", "--baseline", "{set}"], "baseline has no"),
        (["--dataset", "{set}", "--baseline", "{run}"], "answers no query of set"),
    ],
)
def test_wrong_calls_are_refused(
    tmp_path: Path, model: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.trec").write_text("other Q0 d1 1 0.5 t\n")
    places = {"set": write_set(tmp_path / "set"), "missing": tmp_path / "missing", "run": tmp_path / "run.trec"}
    given = [argument.format_map(places) for argument in arguments]
    ours = [] if {"--model", "--sentence-transformers"} & set(given) else ["--model", str(model)]
    assert run(["evaluate", *given, *ours]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1
