"""Cutting in other processes: the same as here, and what becomes of documents when one of them ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from encoder.errors import InvalidInput, Unavailable
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.cutting.cutter import CutDocument, CutRequest, CutterHere
from ingest.cutting.processes import CuttingProcesses
from ingest.documents import Document

CHUNKER = Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER), tokens_max=32, overlap_tokens=8)


@pytest.fixture
async def processes() -> AsyncIterator[CuttingProcesses]:
    made = CuttingProcesses(DEFAULT_MODEL_FOLDER, CHUNKER, 2)
    yield made
    await made.close()


def make_requests() -> list[CutRequest]:
    paragraphs = [f"Paragraph {number} says this.\n\n# Part {number}\n\nAnd naïvely that. 😀" for number in range(40)]
    documents = [
        *(Document(f"d{size}", "\n\n".join(paragraphs[:size]), title=f"Of {size}\nparts") for size in range(1, 40)),
        Document("code", "def first():\n    return 1\n" * 30, metadata={"language": "python"}),
        Document("unread", "\u0301\u0302"),
    ]
    return [*map(CutRequest, documents), CutRequest(documents[9], begin=200)]


async def test_they_cut_as_this_process_does(processes: CuttingProcesses) -> None:
    requests = make_requests()
    here, there = await CutterHere(CHUNKER).cut(requests), await processes.cut(requests)
    for one, other in zip(here, there, strict=True):
        if isinstance(one, InvalidInput):
            assert isinstance(other, InvalidInput)
            assert (other.field, str(other)) == (one.field, str(one))
            continue
        assert isinstance(other, CutDocument)
        assert (other.title, other.chunks) == (one.title, one.chunks)
        for mine, theirs in zip(one.sparse, other.sparse, strict=True):
            np.testing.assert_array_equal(mine.indices, theirs.indices)
            np.testing.assert_array_equal(mine.values, theirs.values)
    assert isinstance(here[-2], InvalidInput)
    assert await processes.cut([]) == []


async def test_one_that_was_killed_is_replaced(processes: CuttingProcesses) -> None:
    requests = make_requests()[:6]
    expected = await processes.cut(requests)
    for process in processes._processes:
        assert process._child is not None
        os.kill(process._child.pid, signal.SIGKILL)
    found = await processes.cut(requests)
    assert [cut.chunks for cut in found if isinstance(cut, CutDocument)] == [
        cut.chunks for cut in expected if isinstance(cut, CutDocument)
    ]
    assert len(found) == 6


async def test_an_answer_that_was_not_read_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out_of_memory(_: object) -> object:
        raise MemoryError

    first, second = make_requests()[5:7]
    made = CuttingProcesses(DEFAULT_MODEL_FOLDER, CHUNKER, 1)
    try:
        await made.cut([first])
        with monkeypatch.context() as patch:
            patch.setattr("ingest.cutting.processes.receive", run_out_of_memory)
            with pytest.raises(MemoryError):
                await made.cut([first])
        (found,) = await made.cut([second])
    finally:
        await made.close()
    (expected,) = await CutterHere(CHUNKER).cut([second])
    assert isinstance(found, CutDocument)
    assert isinstance(expected, CutDocument)
    assert found.chunks == expected.chunks


async def test_a_document_that_ends_the_process_is_refused_alone(
    processes: CuttingProcesses, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import ingest.cutting.cutter as cutter\n"
        "cut = cutter.cut\n"
        "def fragile(chunker, request):\n"
        "    return os.abort() if request.document.document_id == 'd3' else cut(chunker, request)\n"
        "cutter.cut = fragile\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = await processes.cut(make_requests()[:6])
    refused = [number for number, cut in enumerate(found) if isinstance(cut, InvalidInput)]
    assert refused == [2]
    assert str(found[2]) == "text of d3 ended the process that was to cut it; split the document."


async def test_one_that_does_not_start_is_no_documents_fault(tmp_path: Path) -> None:
    processes = CuttingProcesses(tmp_path / "gone", CHUNKER, 1)
    with pytest.raises(Unavailable, match=r"exit status 1 while it started; .* Is the model's folder still there\?"):
        await processes.cut(make_requests())
    await processes.close()


def test_they_end_with_whoever_started_them() -> None:
    program = (
        "import asyncio, os, signal\n"
        "from tests.test_cutting import CHUNKER, DEFAULT_MODEL_FOLDER, CuttingProcesses, make_requests\n"
        "processes = CuttingProcesses(DEFAULT_MODEL_FOLDER, CHUNKER, 1)\n"
        "asyncio.run(processes.cut(make_requests()[:1]))\n"
        "print(processes._processes[0]._child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    ends_at = time.monotonic() + 10
    while _is_alive(int(done.stdout)):
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
