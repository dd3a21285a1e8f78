"""``search``, ``retrieve`` and ``similar``, of a service and in this process: what they show and refuse."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from services.cli.app import run
from tests.fakes import FakeEncoder
from tests.processes import free_port
from tests.serving import services_running
from tests.tiny_model import save_tiny_model

DOCUMENTS = [
    {"document_id": "ants", "title": "Ants", "text": "Ants carry leaves into their nest.", "metadata": {"year": 2001}},
    {"document_id": "bees", "title": "Bees", "text": "Bees carry pollen into their hive.", "metadata": {"year": 2011}},
    {"document_id": "moles", "title": "Moles", "text": "Moles dig under a lawn.", "metadata": {"year": 2021}},
]


@pytest.fixture(scope="module", params=["service", "process"])
def where(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[str]]:
    """Options that say who searches: a service, or this process."""
    folder = tmp_path_factory.mktemp("index")
    source = folder / "documents.jsonl"
    source.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAMBASEARCH_MODEL", str(save_tiny_model(folder / "model")))
        patch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
        patch.setenv("COLUMNS", "200")
        if request.param == "process":
            assert run(["ingest", str(source), "--data-dir", str(folder / "data")]) == 0
            yield ["--data-dir", str(folder / "data")]
        else:
            with services_running(folder / "data", FakeEncoder) as targets:
                assert run(["ingest", str(source), "--target", targets.ingest]) == 0
                yield ["--target", targets.search]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(arguments) == 0
    return capsys.readouterr().out


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    return json.loads(shown(capsys, *arguments, "--json"))


def test_search_with_conditions(where: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--where", "--filter"):
        answer = found(capsys, "search", "carry", *where, option, "year>=2010")
        assert {hit["document_id"] for hit in answer["hits"]} == {"bees", "moles"}
    both = found(capsys, "search", "carry", *where, "--where", "year>=2010", "--where", "title=Bees")
    assert [hit["document_id"] for hit in both["hits"]] == ["bees"]


def test_search_page_after_page(where: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    first = found(capsys, "search", "carry", *where, "-k", "2")
    text = shown(capsys, "search", "carry", *where, "-k", "2")
    assert f"more: --page {first['next_page_token']}" in text.splitlines()
    second = found(capsys, "search", "carry", *where, "-k", "2", "--page", first["next_page_token"])
    assert [hit["rank"] for hit in first["hits"] + second["hits"]] == [1, 2, 3]
    assert {hit["document_id"] for hit in first["hits"] + second["hits"]} == {"ants", "bees", "moles"}
    assert second["next_page_token"] == ""


def test_search_explained_grouped_and_diverse(where: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "search", "moles lawn", *where, "--mode", "sparse", "--explain")
    assert "is the BM25 score" in text
    grouped = found(capsys, "search", "carry", *where, "--group", "-k", "2")
    assert (len(grouped["groups"]), grouped["hits"]) == (2, [])
    assert grouped["groups"][0]["hits"][0]["document_id"] == grouped["groups"][0]["document_id"]
    assert "2 documents in " in shown(capsys, "search", "carry", *where, "--group", "-k", "2")
    diverse = found(capsys, "search", "carry", *where, "--diversity", "0.5")
    assert len(diverse["hits"]) == 3
    assert found(capsys, "search", "carry", *where, "--min-score", "1")["hits"] == []


def test_hits_in_code_have_the_place_that_editors_open_and_the_symbol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "def round_price(price, step):\n    return -(-price // step) * step\n"
    rows = [
        {"document_id": "shop/prices.py", "title": "shop/prices.py", "text": code, "metadata": {"language": "Python"}},
        {"document_id": "prices", "text": "Prices are rounded.", "metadata": {"language": "en", "read": "2026-01-02"}},
    ]
    source = tmp_path / "documents.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(save_tiny_model(tmp_path / "model")))
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "200")
    where = ["--data-dir", str(tmp_path / "data")]
    assert run(["ingest", str(source), *where]) == 0
    asked = ["price", "--mode", "sparse", *where]
    lines = shown(capsys, "search", *asked).splitlines()
    first = next(number for number, line in enumerate(lines) if " shop/prices.py  score " in line)
    assert lines[first + 1] == "    shop/prices.py:1-2  round_price"
    assert lines[first + 2].startswith("    def round_price(price, step): return")
    assert any(line.startswith(f"    {source}:2, line") and "characters 0-19 of 19 (0%)" in line for line in lines)
    grouped = shown(capsys, "search", *asked, "--group").splitlines()
    assert any(line.endswith(", shop/prices.py:1-2  round_price") for line in grouped)
    hits = {hit["document_id"]: hit for hit in found(capsys, "search", *asked)["hits"]}
    hit = hits["shop/prices.py"]
    assert (hit["line_start"], hit["line_end"], hit["headings"]) == (1, 2, ["round_price"])
    assert [hits[row["document_id"]]["metadata"] for row in rows] == [row["metadata"] for row in rows]
    (group, *_) = [one for one in found(capsys, "search", *asked, "--group")["groups"] if one["title"]]
    assert group["metadata"] == {"language": "Python"}


def test_retrieve_prints_a_text_for_a_prompt(where: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["retrieve", "moles", "--mode", "sparse", *where]) == 0
    answer = capsys.readouterr()
    assert answer.out == "[1] Moles (moles, line 1)\nMoles dig under a lawn.\n"
    assert answer.err.startswith("1 passage, ")
    assert "of 2,048 tokens" in answer.err
    whole = found(capsys, "retrieve", "carry", *where, "--neighbours", "1", "--order", "document", "--diversity", "0.1")
    assert whole["context_tokens"] <= 2048
    assert {passage["number"] for passage in whole["passages"]} == {1, 2, 3}


def test_similar_documents(where: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    answer = found(capsys, "similar", "ants", *where, "-k", "2")
    assert {document["document_id"] for document in answer["documents"]} == {"bees", "moles"}
    text = shown(capsys, "similar", "ants", *where, "--where", "year<2020")
    assert " 1. Bees  score " in text
    assert "1 document in " in text
    assert shown(capsys, "similar", "ants", *where, "--where", "year>3000").startswith("Nothing found.")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "a", "--where", "??"], 2, "where is '??'; write FIELD=VALUE"),
        (["search", "a", "--diversity", "2"], 2, "diversity is 2.0; 0 to 1 are allowed."),
        (["search", "a", "--diversity", "0.5", "--group"], 2, "choose one of them"),
        (["search", "a", "--min-score", "0.5", "--mode", "sparse"], 2, "mode sparse has none"),
        (["search", "a", "--min-score", "7"], 2, "min_score is 7.0; -1 to 1 are allowed."),
        (["search", "a", "--page", "nonsense"], 2, "begin with the first page"),
        (["search", "a", "--tenant", "no such"], 2, "tenant"),
        (["retrieve", " "], 2, "query is empty"),
        (["retrieve", "a", "--token-budget", "0"], 2, "token_budget is 0; 1 to 131072 are allowed."),
        (["retrieve", "a", "--top-k", "0"], 2, "top_k is 0; 1 to 200 are allowed."),
        (["retrieve", "a", "--neighbours", "6"], 2, "neighbours is 6; 0 to 5 are allowed."),
        (["retrieve", "a", "--order", "random"], 2, "'random' is not one of 'score', 'document'"),
        (["similar", "nobody"], 4, "There is no document 'nobody'."),
        (["similar", "ants", "--top-k", "101"], 2, "top_k is 101; 1 to 100 are allowed."),
        (["similar", "ants", "--min-score", "-3"], 2, "min_score is -3.0; -1 to 1 are allowed."),
    ],
)
def test_what_is_refused(
    where: Sequence[str], arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run([*arguments, *where]) == code
    refused = capsys.readouterr()
    assert refused.out == ""
    assert message in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize("command", ["retrieve", "similar"])
def test_without_a_service_or_an_index(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "a", "--target", f"127.0.0.1:{free_port()}"]) == 69
    assert "`mamba-search up`" in capsys.readouterr().err
    assert run([command, "a", "--data-dir", str(tmp_path / "none")]) == 4
    assert "holds no index" in capsys.readouterr().err
    assert run([command, "a", "--target", "127.0.0.1:1", "--data-dir", str(tmp_path)]) == 2
    assert "exclude each other" in capsys.readouterr().err
