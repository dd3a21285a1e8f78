"""How far an ingestion is, as a command tells it; which documents were refused, and why."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from encoder.errors import InvalidInput
from ingest.documents import Document
from ingest.expected import Expected
from ingest.receipts import LoadError, Outcome, Progress, Receipt
from services.cli import stages
from services.cli.app import run
from services.cli.refusals import TOLD_MAX, Refusals, kind_of
from services.cli.stages import said, showing
from services.cli.tally import Stage, Tally
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(model))
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")


def refused(source: str, message: str, field: str = "text") -> Receipt:
    return Receipt("", source, Outcome.REJECTED, error=InvalidInput(field, message))


def shown_by(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_stage_each_in_this_process() -> None:
    tally = Tally(Expected(documents=None, text_bytes=40_000), progress=Progress())
    documents = [Document("a", "a" * 4000), Document("b", "b" * 6000)]
    assert list(tally.watch(iter(documents))) == documents
    assert tally.stages()[1:-1] == [Stage(name, 0, None, "chunks") for name in ("chunk", "encode", "write")]
    tally.follow(Progress(bytes_cut=10_000, chunks_cut=10, chunks_encoded=6, chunks=5, tokens=900))
    assert tally.share_done() == pytest.approx(5_000 / 40_000)
    tally.count(Receipt("a", "", Outcome.INGESTED, chunk_count=4, token_count=800))
    assert tally.stages() == [
        Stage("read", 2, 8, "documents"),
        Stage("chunk", 10, 40, "chunks"),
        Stage("encode", 6, 40, "chunks"),
        Stage("write", 5, 40, "chunks"),
        Stage("committed", 1, 8, "documents"),
    ]
    assert tally.share_done() == pytest.approx((4_000 + 6_000 / 6) / 40_000)
    tally.count(Receipt("b", "", Outcome.INGESTED, chunk_count=6, token_count=100))
    assert tally.share_done() == pytest.approx(0.25)
    assert tally.summary().startswith("2 documents ingested (10 chunks, 900 tokens), 0 unchanged, 0 refused, in ")


def test_of_a_service_only_the_ends_are_known() -> None:
    tally = Tally(Expected(documents=3))
    error = LoadError("x", InvalidInput("text", "x is broken."))
    assert len(list(tally.watch(iter([Document("a", "text"), error])))) == 2
    tally.count(refused("x", "x is broken."))
    assert tally.stages() == [Stage("read", 2, 3, "documents"), Stage("committed", 1, 3, "documents")]
    assert tally.share_done() == pytest.approx(1 / 3)
    tally.give_up()
    assert tally.read == 1
    assert Tally().stages()[0] == Stage("read", 0, None, "documents")
    assert Tally().share_done() is None


def test_figures_in_words() -> None:
    assert said(Stage("read", 1200, 34_000, "documents")) == "1,200 of about 34,000 documents"
    assert said(Stage("read", 7, 7, "documents")) == "7 of 7 documents"
    assert said(Stage("read", 7, None, "documents")) == "7 documents"


@pytest.mark.parametrize("terminal", [True, False])
async def test_progress_is_shown(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LINE_EVERY_S", 0.01)
    monkeypatch.setattr(stages, "BARS_EVERY_S", 0.01)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    tally = Tally(Expected(documents=3, text_bytes=30), progress=Progress(), read=2, rejected=1, bytes_read=20)
    tally.follow(Progress(bytes_cut=10, chunks_cut=2, chunks_encoded=1, retries=3))
    async with showing(tally, console):
        async with asyncio.timeout(30):
            while "committed" not in shown_by(console):  # noqa: ASYNC110 - a console tells nobody
                await asyncio.sleep(0.01)
    told = shown_by(console)
    for part in ("read", "2 of about 3 documents", "chunk", "2 of about 6 chunks", "encode", "1 of about 6 chunks"):
        assert part in told
    assert "1 refused" in told
    assert "3 calls repeated" in told


def test_what_refusals_have_in_common() -> None:
    first = refused("a/b.txt", "a/b.txt is not UTF-8 (byte 3); convert it.")
    second = refused("é.txt", "é.txt is not UTF-8 (byte 12); convert it.")
    assert kind_of(first) == kind_of(second) == "text: is not UTF-8 …; convert it"
    row = refused("c.jsonl:7", "c.jsonl:7 has a title 'x' of 3,000 characters; the limit is 2048.", "title")
    assert kind_of(row) == "title: has a title … of N characters; the limit is N"


def test_many_refusals_are_grouped() -> None:
    console = Console(file=io.StringIO(), width=200)
    refusals = Refusals(console)
    assert refusals.summary() == ""
    for number in range(TOLD_MAX + 5):
        refusals.tell(refused(f"{number}.txt", f"{number}.txt is not UTF-8 (byte {number}); convert it."))
    refusals.tell(refused("z.pdf", "z.pdf is protected by a password."))
    assert shown_by(console).count("refused: ") == TOLD_MAX + 1
    *groups, last = refusals.summary().splitlines()
    assert [line.strip() for line in groups] == [
        f"{TOLD_MAX + 5}  text: is not UTF-8 …; convert it; the first: 0.txt",
        "1  text: is protected by a password; the first: z.pdf",
    ]
    assert last.startswith(f"{TOLD_MAX + 6} refused: --failures FILE writes each of them to a file.")


def test_a_file_of_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "good.txt").write_text("A good text.")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "rows.jsonl").write_text('{"document_id": "x", "text": "row"}\n{"document_id": "x", "text": "again"}\n')
    (folder / "long.jsonl").write_text(json.dumps({"document_id": "y" * 600, "text": "Its id is too long."}) + "\n")
    failures = tmp_path / "failures.jsonl"
    arguments = ["ingest", str(folder), "--data-dir", str(tmp_path / "data"), "--failures", str(failures)]
    assert run(arguments) == 1
    rows = [json.loads(line) for line in failures.read_text().splitlines()]
    assert [(row["source"], row["field"]) for row in rows] == [
        (f"{folder}/latin.txt", "text"),
        (f"{folder}/long.jsonl:1", "document_id"),
        (f"{folder}/rows.jsonl:2", "document_id"),
    ]
    assert "is not UTF-8 (byte 3)" in rows[0]["reason"]
    assert rows[1]["document_id"] == "y" * 600
    shown = capsys.readouterr()
    assert shown.out.startswith("2 documents ingested")
    assert f"3 refused: each stands in {failures}. Correct them and ingest again" in shown.err


@pytest.mark.parametrize("place", ["documents/failures.jsonl", "nowhere/failures.jsonl"])
def test_a_file_of_failures_in_a_wrong_place(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "documents").mkdir()
    arguments = ["ingest", str(tmp_path / "documents"), "--data-dir", str(tmp_path / "data")]
    assert run([*arguments, "--failures", str(tmp_path / place)]) == 2
    reasons = {"documents": "name a file elsewhere", "nowhere": "cannot be written (No such file or directory)"}
    assert reasons[place.partition("/")[0]] in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
