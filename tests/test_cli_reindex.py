"""``mamba-search reindex`` and ``bulk-load`` from the command line: two tiny models, a real engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.cli.app import run
from tests.tiny_model import save_tiny_model

TURTLES = "The Mock Turtle went to school in the sea.\n\nThe master was an old Turtle; we called him Tortoise.\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(save_tiny_model(folder / "old")), str(save_tiny_model(folder / "new", seed=1, pooling="mean"))


def test_a_directory_moves_to_another_model_and_way_of_encoding(
    models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = models
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    monkeypatch.setenv("MAMBASEARCH_MODEL", old)
    data, file = str(tmp_path / "data"), tmp_path / "turtles.txt"
    file.write_text(TURTLES)
    assert run(["ingest", str(file), "--data-dir", data]) == 0
    assert run(["reindex", "--data-dir", data]) == 2
    assert "already; there is nothing to move" in capsys.readouterr().err
    monkeypatch.setenv("MAMBASEARCH_CHUNK_ENCODING", "one-pass")
    assert run(["reindex", "--data-dir", data, "--model", new]) == 0
    assert f"{data} is an index of {new} now" in capsys.readouterr().out
    search = ["search", "Who was called Tortoise?", "--data-dir", data, "--json"]
    assert run(search) == 5
    monkeypatch.setenv("MAMBASEARCH_MODEL", new)
    capsys.readouterr()
    assert run(search) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [hit["title"] for hit in hits] == ["turtles"]
    assert "called him Tortoise" in hits[0]["text"]
    assert run(["ingest", str(file), "--data-dir", data]) == 0
    assert "0 documents ingested" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["reindex"], 2, "No Qdrant server is named"),
        (["reindex", "--data-dir", "a", "--qdrant-url", "http://127.0.0.1:1"], 2, "exclude each other"),
        (["reindex", "--qdrant-url", "http://127.0.0.1:1"], 69, "failed or cannot be reached"),
        (["bulk-load", "missing.jsonl", "--collection", "c", "--checkpoint", "c"], 2, "No Qdrant server is named"),
        (
            ["bulk-load", "missing.jsonl", "--collection", "c", "--checkpoint", "c", "--qdrant-url", "http://a:1"],
            2,
            "missing.jsonl cannot be read",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    models: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAMBASEARCH_MODEL", models[1])
    monkeypatch.delenv("MAMBASEARCH_QDRANT_URL", raising=False)
    assert run(arguments) == code
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
