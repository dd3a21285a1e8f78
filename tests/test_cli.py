"""The command line in one process: what it prints, what it refuses, how it ends. Model tiny, engine real."""

import json
import signal
import socket
import subprocess
import sys
import time
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from ingest.index.data_directory import DataDirectory
from ingest.receipts import Receipt
from services.cli.app import run
from services.cli.tally import Tally
from tests.processes import free_port
from tests.tiny_model import save_tiny_model

TURTLES = "The Mock Turtle went to school in the sea.\n\nThe master was an old Turtle; we called him Tortoise.\n"
KENYA = "# Kenya\n\nElectricity: geothermal 47 percent, wind 16 percent.\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(model))
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "turtles.txt").write_text(TURTLES)
    (folder / "kenya.md").write_text(KENYA)
    return folder


@pytest.fixture
def data_dir(tmp_path: Path, documents: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """An index that holds both documents."""
    assert run(["ingest", str(documents), "--data-dir", str(tmp_path / "data")]) == 0
    capsys.readouterr()
    return str(tmp_path / "data")


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on standard error: one line, and nothing on standard output."""
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("mamba-search: ")
    assert shown.err.count("\n") == 1
    return shown.err.removeprefix("mamba-search: ").strip()


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from services.cli.app import run; run(['--help']);"
        "print([name for name in ('torch', 'ray', 'grpc', 'qdrant_edge', 'qdrant_client', 'numpy', 'tokenizers')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("up", "ingest", "search", "encode", "evaluate"):
        assert f" {command} " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["up", "ingest", "search", "encode", "evaluate"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage: mamba-search " + command in capsys.readouterr().out


def test_version_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "mamba-search 0.1.0\n"
    assert run([]) == 0
    assert "Usage: mamba-search" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "No such command 'fly'"),
        (["search"], "Missing argument 'query'"),
        (["search", "a", "--mode", "fuzzy"], "'fuzzy' is not one of 'dense', 'sparse', 'hybrid'"),
        (["search", "a", "--top-k", "many"], "Invalid value for '--top-k'"),
        (["search", "a", "--wrong"], "No such option: --wrong"),
        (["up", "--search-port", "0"], "search_port is '0': Input should be greater than or equal to 1"),
        (["up", "--encoder-device", "tpu"], "encoder_device is 'tpu'"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert message in error_line(capsys)


def test_ingest_says_what_became_of_the_documents(
    tmp_path: Path, documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (documents / "latin.txt").write_bytes(b"caf\xe9")
    arguments = ["ingest", str(documents), str(tmp_path / "nowhere"), "--data-dir", str(tmp_path / "data")]
    assert run(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("2 documents ingested (2 chunks, ")
    assert "0 unchanged, 2 refused, in " in shown.out
    assert "latin.txt is not UTF-8 (byte 3)" in shown.err
    assert "nowhere cannot be read (No such file or directory)" in shown.err

    (documents / "latin.txt").unlink()
    assert run(["ingest", str(documents), "--data-dir", str(tmp_path / "data")]) == 0
    assert capsys.readouterr().out.startswith("0 documents ingested (0 chunks, 0 tokens), 2 unchanged, 0 refused")


def test_ingest_reads_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = json.dumps({"document_id": "a", "text": "about ants"}) + "\n" + json.dumps({"document_id": "b"}) + "\n"
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(lines.encode())))
    assert run(["ingest", "-", "--data-dir", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().out.startswith("1 document ingested")
    assert run(["search", "ants", "--data-dir", str(tmp_path / "data"), "--json"]) == 0
    assert [hit["document_id"] for hit in json.loads(capsys.readouterr().out)["hits"]] == ["a"]


def test_chunks_in_one_pass_make_an_index_of_their_own(
    data_dir: str, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAMBASEARCH_CHUNK_ENCODING", "one-pass")
    assert run(["search", "geothermal", "--data-dir", data_dir]) == 5
    assert "one-pass" in error_line(capsys)
    own = str(tmp_path / "one-pass")
    assert run(["ingest", str(documents), "--data-dir", own]) == 0
    assert run(["search", "geothermal electricity", "--data-dir", own]) == 0
    assert " 1. Kenya" in capsys.readouterr().out


def test_search_shows_rank_title_place_and_passage(data_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "geothermal electricity", "--data-dir", data_dir]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(" 1. Kenya  score 0.0")
    assert (
        f"kenya.md, lines 1-{KENYA.strip().count(chr(10)) + 1}, characters 0-{len(KENYA.strip())} of {len(KENYA)} (0%)"
        in shown
    )
    assert "# Kenya Electricity: geothermal 47 percent, wind 16 percent." in shown
    assert " 2. turtles" in shown
    assert shown.splitlines()[-1].startswith("2 passages in ")


def test_matching_words_are_marked_on_a_terminal(
    data_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert run(["search", "percents of geothermal energy", "--data-dir", data_dir, "-k", "1"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[1;33mgeothermal\x1b[0m" in shown
    assert "\x1b[1;33mpercent\x1b[0m" in shown
    assert "\x1b[1;33mwind" not in shown


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_search_as_json(data_dir: str, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "Tortoise", "--data-dir", data_dir, "--json", "--mode", mode, "--top-k", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["query"], found["mode"], len(found["hits"])) == ("Tortoise", mode, 1)
    assert found["query_tokens"] == (0 if mode == "sparse" else 4)  # tor ##to ##ise, end of sequence
    hit = found["hits"][0]
    assert (hit["dense_score"] is None) == (mode == "sparse")
    if mode != "dense":  # the tiny model's weights are random
        assert (hit["document_id"], hit["title"], hit["rank"]) == ("turtles.txt", "turtles", 1)
        assert hit["text"] == TURTLES[hit["char_start"] : hit["char_end"]]
        assert hit["sparse_score"] > 0


def test_nothing_found(data_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "zebra", "--mode", "sparse", "--data-dir", data_dir]) == 0
    assert capsys.readouterr().out.startswith("Nothing found.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "query is empty or only white space"),
        (["word " * 600], "query has 601 tokens; the limit is 512. Shorten it."),
        (["word", "--top-k", "0"], "top_k is 0; 1 to 200 are allowed."),
        (["word", "--top-k", "201"], "top_k is 201; 1 to 200 are allowed."),
    ],
)
def test_unacceptable_searches_are_refused(
    data_dir: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", *arguments, "--data-dir", data_dir]) == 2
    assert message in error_line(capsys)


def test_a_directory_without_an_index_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "word", "--data-dir", str(tmp_path / "none")]) == 4
    assert "holds no index; fill it with `mamba-search ingest PATH --data-dir" in error_line(capsys)
    assert not (tmp_path / "none").exists()


def test_a_held_directory_is_refused(data_dir: str, documents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = DataDirectory.hold(Path(data_dir))
    try:
        assert run(["search", "word", "--data-dir", data_dir]) == 73
        assert "is held by another process" in error_line(capsys)
        assert run(["ingest", str(documents), "--data-dir", data_dir]) == 73
        assert "is held by another process" in error_line(capsys)
    finally:
        held.release()


def test_another_models_index_is_refused(
    data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(save_tiny_model(tmp_path / "other", seed=1)))
    assert run(["search", "word", "--data-dir", data_dir]) == 5
    assert "was made with model=" in error_line(capsys)


def test_a_broken_model_is_refused(
    data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = save_tiny_model(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(broken))
    assert run(["search", "word", "--data-dir", data_dir]) == 6
    assert "model.safetensors" in error_line(capsys)


def test_an_unknown_setting_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MAMBASEARCH_MODLE", "x")
    assert run(["search", "word"]) == 2
    assert "MAMBASEARCH_MODLE is not a setting" in error_line(capsys)


@pytest.mark.parametrize("command", [["search", "word"], ["ingest", __file__]])
def test_without_a_service_both_ways_are_told(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--target", f"127.0.0.1:{free_port()}"]) == 69
    line = error_line(capsys)
    assert "answers at 127.0.0.1:" in line
    assert "`mamba-search up`" in line
    assert "--data-dir" in line


def test_up_refuses_a_port_or_a_directory_in_use_before_it_starts_anything(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAMBASEARCH_QUERY_MODEL", str(model))
    monkeypatch.setenv("MAMBASEARCH_PASSAGE_MODEL", str(model))
    names = ("search", "ingest", "index", "encoder")
    ports = [word for name in names for word in (f"--{name}-port", str(free_port()))]
    arguments = ["up", "--data-dir", str(tmp_path / "data"), *ports]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run([*arguments, "--search-port", port]) == 73
        line = error_line(capsys)
    assert port in line
    assert "in use" in line

    held = DataDirectory.hold(tmp_path / "data")
    try:
        assert run(arguments) == 73
        assert "is held by another process" in error_line(capsys)
    finally:
        held.release()


@pytest.mark.parametrize("target", ["foo", "127.0.0.1:99999", "http://127.0.0.1:50051"])
@pytest.mark.parametrize("command", ["search", "ingest", "encode"])
def test_a_target_is_host_and_port(command: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "word", "--target", target]) == 2
    assert error_line(capsys) == f"target is {target!r}; HOST:PORT is expected."


@pytest.mark.parametrize("command", ["search", "ingest"])
def test_a_target_and_a_directory_exclude_each_other(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "word", "--target", "127.0.0.1:1", "--data-dir", str(tmp_path / "data")]) == 2
    assert error_line(capsys) == "--target and --data-dir exclude each other; give one of them."
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", [["search", "word"], ["ingest", __file__], ["up"]])
@pytest.mark.parametrize("below", ["", "/data"])
def test_a_file_in_place_of_the_data_directory_is_refused(
    command: list[str], below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("SEARCH", "INGEST", "INDEX", "ENCODER"):
        monkeypatch.setenv(f"MAMBASEARCH_{name}_PORT", str(free_port()))
    file = tmp_path / "a.txt"
    file.write_text("x")
    assert run([*command, "--data-dir", f"{file}{below}"]) == 2
    assert error_line(capsys) == f"data_dir {file} is a file; give a directory."


def test_ctrl_c_tells_how_much_was_ingested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.txt").write_text(f"Text of {number}.")
    count = Tally.count

    def interrupt_once(tally: Tally, receipt: Receipt) -> None:
        count(tally, receipt)
        if tally.documents == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Tally, "count", interrupt_once)
    assert run(["ingest", str(folder), "--data-dir", str(tmp_path / "data")]) == 130
    shown = capsys.readouterr()
    ingested = int(shown.out.split()[0])
    assert 0 < ingested < 300
    documents = "document" if ingested == 1 else "documents"
    assert shown.err == f"interrupted: {ingested} {documents} ingested; the rest was not\n"


def test_encode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["encode", "one text", "another"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["text"], row["token_count"], len(row["embedding"])) for row in rows] == [
        ("one text", 3, 32),
        ("another", 2, 32),
    ]
    assert sum(x * x for x in rows[0]["embedding"]) == pytest.approx(1, abs=1e-5)

    lines = "".join(f"text {number}\n\n" for number in range(70))  # more than one batch
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(lines.encode())))
    assert run(["encode", "--query"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == [f"text {number}" for number in range(70)]

    assert run(["encode", " "]) == 2
    assert "is empty or only white space" in error_line(capsys)


def test_encode_asks_a_service_when_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    target = f"127.0.0.1:{free_port()}"
    assert run(["encode", "one text", "--target", target]) == 69
    assert f"encoder service at {target} cannot be reached" in error_line(capsys)


def test_a_reader_that_closes_the_pipe_ends_it_quietly(model: Path) -> None:
    command = f"'{sys.executable}' -c 'from services.cli import main; main()' --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in {"0", "1", "141"}


def test_ctrl_c_ends_it_quietly(model: Path) -> None:
    code = "from services.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "encode"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write("one\n" * 64)  # a whole batch, after which it waits for more
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "one"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert errors == ""
    assert process.returncode == 130
