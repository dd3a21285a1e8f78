"""``mamba-search ask`` from question to citations: of a service's documents, and of a repository."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.app import run
from tests.asking.llm_server import Reply, llm_server
from tests.fakes import FakeEncoder
from tests.serving import Targets, services_running
from tests.tiny_model import save_tiny_model

KENYA = "demo/documents/factbook-kenya.md"
QUESTION = "How much of the electricity is geothermal?"


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    with services_running(tmp_path_factory.mktemp("asking") / "data", FakeEncoder) as found:
        assert run(["ingest", KENYA, "--target", found.ingest]) == 0
        yield found


def test_it_answers_with_citations(targets: Targets, capsys: pytest.CaptureFixture[str]) -> None:
    with llm_server(Reply(["Nearly half ", "[1].\x1b[31m"])) as server:
        code = run(["ask", QUESTION, "--mode", "sparse", "--target", targets.search, "--llm-url", server.url])
    shown = capsys.readouterr().out
    assert code == 0
    assert shown.startswith("Nearly half [1].[31m\n\n[1] factbook-kenya.md"), "nothing steers the terminal"
    assert "Kenya (The World Factbook)" in shown.splitlines()[-1]
    (request,) = server.requests
    assert request["model"] == "codestral-mamba"
    assert "geothermal: 47.2% of total installed capacity" in request["messages"][1]["content"]
    assert request["messages"][1]["content"].endswith(f"Question: {QUESTION}")


def test_json_says_all_of_it_and_warnings_stay_apart(targets: Targets, capsys: pytest.CaptureFixture[str]) -> None:
    with llm_server(Reply(["Half [1] [99]"], end="length")) as server:
        arguments = ["--json", "--mode", "sparse", "--llm-model", "m", "--llm-url", server.url]
        assert run(["ask", QUESTION, "--target", targets.search, *arguments]) == 0
    shown = capsys.readouterr()
    row = json.loads(shown.out)
    assert (row["answer"], row["end"], row["model"]) == ("Half [1] [99]", "length", "m")
    assert [each["number"] for each in row["citations"]] == [1]
    assert len(row["passages"]) >= 1
    assert "cut at 1024 tokens" in shown.err
    assert "cites [99], which it was not given" in shown.err


def test_an_answer_without_citations_lists_what_it_was_given(
    targets: Targets, capsys: pytest.CaptureFixture[str]
) -> None:
    with llm_server(Reply(["The documents do not say."])) as server:
        assert run(["ask", QUESTION, "--mode", "sparse", "--target", targets.search, "--llm-url", server.url]) == 0
    assert "The answer cites nothing. It was given:\n[1] factbook-kenya.md" in capsys.readouterr().out


def test_the_context_keeps_to_its_budget(targets: Targets) -> None:
    lengths = []
    for tokens in ("256", "1500"):
        with llm_server(Reply(["x"])) as server:
            arguments = ["--mode", "sparse", "--context-tokens", tokens, "--llm-url", server.url]
            assert run(["ask", QUESTION, "--target", targets.search, *arguments]) == 0
        lengths.append(len(server.requests[0]["messages"][1]["content"].split()))
    assert lengths[0] <= 280
    assert lengths[0] < lengths[1] <= 1600


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--llm-url", "http://127.0.0.1:1/v1"], 69, "No model server answers at http://127.0.0.1:1/v1"),
        (["--llm-url", "nonsense"], 2, "llm_url is 'nonsense'"),
        (["--tenant", "nobody"], 4, "Nothing was found that could answer this"),
        (["--tenant", "a b"], 2, "tenant"),
        (["--context-tokens", "5"], 2, "llm_context_tokens is '5'"),
        (["--data-dir", "x"], 2, "exclude each other"),
    ],
)
def test_what_goes_wrong_is_one_line(
    targets: Targets,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("MAMBASEARCH_LLM_ATTEMPTS_MAX", "1")
    assert run(["ask", QUESTION, "--mode", "sparse", "--target", targets.search, *arguments]) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_a_repository_is_cited_by_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(save_tiny_model(tmp_path / "model")))
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    repository, data = tmp_path / "project", tmp_path / "data"
    (repository / "shop").mkdir(parents=True)
    (repository / "shop" / "prices.py").write_text(
        "import math\n\n\ndef round_price(price, step):\n    return math.ceil(price / step) * step\n"
    )
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    assert run(["ingest", str(repository), "--data-dir", str(data)]) == 0
    capsys.readouterr()
    with llm_server(Reply(["It rounds up, in round_price [1]."])) as server:
        assert run(["ask", "How is a price rounded?", "--data-dir", str(data), "--llm-url", server.url]) == 0
    assert capsys.readouterr().out == "It rounds up, in round_price [1].\n\n[1] shop/prices.py:1-5\n"
    assert "return math.ceil(price / step) * step" in server.requests[0]["messages"][1]["content"]
