"""``mamba-search ingest --watch`` as a process of its own: engine, services and file system real, model tiny."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from services.cli.app import run
from tests.fakes import FakeEncoder
from tests.processes import free_port
from tests.serving import services_running
from tests.tiny_model import save_tiny_model

PATIENCE_S = 60.0


class Watcher:
    """The command, and what it has said on standard error."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said += line

    def wait_for(self, words: str, times: int = 1) -> None:
        wait_until(lambda: self.said.count(words) >= times, lambda: f"{words!r} in {self.said!r}", self.process)

    def end(self, how: signal.Signals = signal.SIGINT) -> str:
        """End it; give its standard output."""
        self.process.send_signal(how)
        assert self.process.stdout
        shown = self.process.stdout.read()
        self.process.wait(timeout=30)
        self._reader.join()
        return shown


def wait_until(
    reached: Callable[[], bool], what: Callable[[], str], process: subprocess.Popen[str] | None = None
) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < ends, what()
        assert process is None or process.poll() is None, what()
        time.sleep(0.02)


@contextmanager
def watching(folder: Path, tmp_path: Path, *arguments: str, model: Path | None = None) -> Iterator[Watcher]:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}  # noqa: TID251 - for a process of its own
    if model:
        environment |= {"MAMBASEARCH_MODEL": str(model), "MAMBASEARCH_ENCODER_THREADS": "1"}
    code = "from services.cli import main; main()"
    command = [sys.executable, "-c", code, "ingest", "--watch", str(folder), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    watcher = Watcher(process)
    try:
        yield watcher
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    (made / "kenya.md").write_text("# Kenya\n\nElectricity: geothermal 47 percent.\n")
    (made / "latin.txt").write_bytes(b"caf\xe9")
    return made


def exists(target: str, document_id: str) -> bool:
    request = ingest_pb2.GetDocumentRequest(document_id=document_id)
    with grpc.insecure_channel(target) as channel:
        call = ingest_pb2_grpc.IngestServiceStub(channel).GetDocument.with_call
        try:
            call(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return False
    return True


def test_a_worker_follows_a_folder(folder: Path, tmp_path: Path) -> None:
    failures = tmp_path / "failures.jsonl"
    with services_running(tmp_path / "data", FakeEncoder) as targets:
        arguments = ("--target", targets.ingest, "--failures", str(failures))
        with watching(folder, tmp_path, *arguments) as watcher:
            watcher.wait_for("watching ")
            assert exists(targets.ingest, "kenya.md")
            (folder / "sub").mkdir()
            (folder / "sub" / "ants.txt").write_text("Ants carry leaves.")
            watcher.wait_for(" 1 ingested", 2)
            (folder / "sub").rename(folder / "moved")
            watcher.wait_for(" 1 ingested, 1 deleted")
            assert exists(targets.ingest, "moved/ants.txt")
            assert not exists(targets.ingest, "sub/ants.txt")
            (folder / "latin.txt").write_text("café")
            watcher.wait_for(" 1 ingested", 4)
            folder.rename(tmp_path / "away")
            watcher.wait_for("is not there")
            (tmp_path / "away").rename(folder)
            (folder / "kenya.md").unlink()
            watcher.wait_for(" 1 deleted", 2)
            assert not exists(targets.ingest, "kenya.md")
            shown = watcher.end()
        assert shown.startswith("4 documents ingested (4 chunks, ")
        assert ", 2 deleted, 0 unchanged, 1 refused, in " in shown
        assert watcher.process.returncode == 1
        assert watcher.said.endswith(
            f"1 refused: each stands in {failures}. Correct them and ingest again: what is unchanged costs nothing.\n"
        )
        (folder / "latin.txt").unlink()
        with watching(folder, tmp_path, "--target", targets.ingest, "--prune") as watcher:
            watcher.wait_for("watching ")
            assert watcher.end(signal.SIGTERM).startswith(
                "0 documents ingested (0 chunks, 0 tokens), 1 deleted, 1 unch"
            )
            assert watcher.process.returncode == 0
        assert not exists(targets.ingest, "latin.txt")


def test_a_worker_that_is_away_is_waited_for(folder: Path, tmp_path: Path) -> None:
    (folder / "latin.txt").unlink()
    port = free_port()
    with watching(folder, tmp_path, "--target", f"127.0.0.1:{port}") as watcher:
        watcher.wait_for("Trying again in 2 s.")
        with services_running(tmp_path / "data", FakeEncoder, ingest_port=port) as targets:
            watcher.wait_for("1 ingested")
            assert exists(targets.ingest, "kenya.md")
        (folder / "kenya.md").unlink()
        watcher.wait_for("Trying again in 1 s.", 2)
        with services_running(tmp_path / "data", FakeEncoder, ingest_port=port) as targets:
            watcher.wait_for("1 deleted")
            assert not exists(targets.ingest, "kenya.md")
        assert watcher.end().startswith("1 document ingested")
        assert watcher.process.returncode == 0


def test_an_index_of_this_process_follows_a_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_model(tmp_path / "model")
    with watching(folder, tmp_path, "--data-dir", str(tmp_path / "data"), model=model) as watcher:
        watcher.wait_for("watching ")
        (folder / "kenya.md").unlink()
        (folder / "ants.txt").write_text("Ants carry leaves.")
        watcher.wait_for("1 ingested, 1 deleted")
        watcher.end()
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(model))
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    assert run(["search", "leaves", "--data-dir", str(tmp_path / "data")]) == 0
    shown = capsys.readouterr().out
    assert " 1. ants" in shown
    assert "Kenya" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--watch", "https://example.org/a.txt"], "--watch follows one folder of this machine, not https://example"),
        (["--watch", "{folder}", "{folder}"], "--watch follows one folder of this machine, not "),
        (["--watch", "{folder}/kenya.md"], "--watch follows one folder of this machine, not "),
        (["--prune", "{folder}"], "--prune is for --watch alone"),
    ],
)
def test_what_cannot_be_followed(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ingest", *(argument.format(folder=folder) for argument in arguments)]) == 2
    assert capsys.readouterr().err.startswith(f"mamba-search: {message}")


def test_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert run(["ingest", "--watch", str(folder)]) == 1
    assert "pip install 'mamba-search[watch]'" in capsys.readouterr().err
