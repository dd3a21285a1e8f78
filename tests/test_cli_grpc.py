"""Commands that ask running services. Encoder faked, engine and gRPC real."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.app import run
from tests.fakes import FakeEncoder
from tests.serving import Targets, services_running


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[Targets]:
    with services_running(tmp_path / "data", FakeEncoder) as found:
        yield found


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "kenya.md").write_text("# Kenya\n\nElectricity: geothermal 47 percent, wind 16 percent.\n")
    (folder / "more.jsonl").write_text(
        json.dumps({"document_id": "ants", "title": "Ants", "text": "Ants carry leaves."})
        + "\n{broken\n"
        + json.dumps({"document_id": "x" * 600, "text": "Its id is too long."})
        + "\n"
    )
    (folder / "empty.txt").write_text("")
    return folder


def ingest(targets: Targets, path: Path) -> int:
    return run(["ingest", str(path), "--target", targets.ingest])


def test_ingest_and_search(targets: Targets, documents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest(targets, documents) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("2 documents ingested (2 chunks, ")
    assert "0 unchanged, 3 refused, in " in shown.out
    refusals = [line for line in shown.err.splitlines() if line.startswith("refused: ")]
    assert len(refusals) == 3
    assert any("empty.txt is empty" in line for line in refusals)
    assert any("more.jsonl:2 is not JSON" in line for line in refusals)
    assert any("600 bytes" in line for line in refusals)

    assert run(["search", "geothermal percentages", "--target", targets.search, "--json", "--top-k", "1"]) == 0
    (hit,) = json.loads(capsys.readouterr().out)["hits"]
    assert (hit["document_id"], hit["title"], hit["rank"], hit["chunk_index"]) == ("kenya.md", "Kenya", 1, 0)
    assert hit["source"].endswith("kenya.md")
    assert hit["text"].endswith("wind 16 percent.")
    assert 0 < hit["dense_score"] <= 1

    assert run(["search", "ants", "--target", targets.search, "--mode", "sparse"]) == 0
    assert capsys.readouterr().out.startswith(" 1. Ants  score ")

    assert ingest(targets, documents / "kenya.md") == 0
    assert capsys.readouterr().out.startswith("0 documents ingested (0 chunks, 0 tokens), 1 unchanged")


def test_a_sparse_hit_has_no_dense_score(targets: Targets, documents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest(targets, documents)
    capsys.readouterr()
    assert run(["search", "ants", "--target", targets.search, "--mode", "sparse", "--json"]) == 0
    (hit,) = json.loads(capsys.readouterr().out)["hits"]
    assert hit["dense_score"] is None
    assert hit["sparse_score"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "query is empty or only white space"),
        (["word " * 600], "query has 601 tokens; the limit is 512"),
        (["word", "--top-k", "0"], "top_k is 0; 1 to 200 are allowed"),
    ],
)
def test_the_services_refusals_are_one_line(
    targets: Targets, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", *arguments, "--target", targets.search]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"mamba-search: {message}")
    assert shown.err.count("\n") == 1


def test_the_wrong_service_is_told(targets: Targets, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "word", "--target", targets.ingest]) == 69
    shown = capsys.readouterr().err
    assert f"The search service at {targets.ingest} failed (UNIMPLEMENTED" in shown


def test_what_no_message_can_carry_is_refused_alone(
    targets: Targets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ['{"document_id":"k1","text":"before one"}', '{"document_id":"j9","text":"lone \\ud800 surrogate"}']
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows, '{"document_id":"k2","text":"after all"}']))
    assert ingest(targets, tmp_path / "rows.jsonl") == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("2 documents ingested")
    assert "text is not whole Unicode text (at character 5)" in shown.err
    assert run(["search", "caf\udce9", "--target", targets.search]) == 2
    assert "query is not whole Unicode text" in capsys.readouterr().err
