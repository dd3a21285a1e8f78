"""Commands for jobs, dead letters and documents, and the client's way with a service that is busy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.errors import Overloaded, Unavailable
from ingest.documents import Document
from ingest.receipts import LoadError, Outcome, Receipt
from services.cli import ingest_stream
from services.cli.app import run
from services.cli.ingest_stream import OverGrpc
from services.setting_groups import CallerSettings
from services.status import StatusInterceptor
from tests.fakes import FakeEncoder
from tests.loading.files import write
from tests.pipelining import collect
from tests.serving import Targets, services_running


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[Targets]:
    with services_running(tmp_path / "data", FakeEncoder) as found:
        yield found


def test_from_a_job_to_the_last_document(
    targets: Targets, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> int:
        return run([*arguments, "--target", targets.ingest])

    def rows() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    for number in range(4):
        write(tmp_path / "folder" / f"{number}.txt", f"The text of file {number}.")
    write(tmp_path / "folder" / "bad.txt", b"\0")
    monkeypatch.chdir(tmp_path)
    given = ("--metadata", "year=2020", "--metadata", "batch=x y", "--request-id", "one")
    assert call("jobs", "create", "folder", *given, "--watch") == 1
    shown = capsys.readouterr().out
    assert "ingest succeeded (5 documents, 4 ingested, 1 failed" in shown
    assert call("jobs", "create", "folder", *given, "--json") == 0
    (job,) = rows()
    assert (job["job_id"], job["state"]) == (shown.split()[0], "JOB_STATE_SUCCEEDED")
    assert job["sources"] == [str(tmp_path / "folder")]
    assert call("jobs", "list", "--state", "succeeded") == 0
    assert capsys.readouterr().out.startswith(f"{job['job_id']} ingest succeeded")
    assert call("jobs", "show", job["job_id"]) == call("jobs", "cancel", job["job_id"]) == 0
    assert capsys.readouterr().out.count("succeeded") == 2
    assert call("jobs", "watch", job["job_id"], "--json") == 1
    assert rows()[-1]["progress"]["failed"] == "1"

    assert call("dead-letters", "list", "--job", job["job_id"]) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'folder' / 'bad.txt'} (read, tried once): " in shown
    write(tmp_path / "folder" / "bad.txt", "Good by now.")
    assert call("dead-letters", "replay", job["job_id"], shown.split()[0], "--json") == 0
    (replay,) = rows()
    assert call("jobs", "watch", replay["job_id"]) == 0
    assert "replay succeeded (1 documents, 1 ingested" in capsys.readouterr().out
    assert call("dead-letters", "list", "--json") == 0
    assert rows() == []

    assert call("documents", "list", "--where", "year>=2020", "--where", "document_id^=bad", "--json") == 0
    assert [row["document_id"] for row in rows()] == ["bad.txt"]
    assert call("documents", "show", "0.txt") == 0
    assert capsys.readouterr().out.startswith("0.txt '0' (1 chunks, ")
    assert call("documents", "delete", "0.txt", "1.txt") == 0
    assert capsys.readouterr().out == "0.txt: deleted, 1 chunks\n1.txt: deleted, 1 chunks\n"
    assert call("documents", "delete", "--where", "batch=x y", "--json") == 0
    (deletion,) = rows()
    assert call("jobs", "watch", deletion["job_id"]) == 0
    assert "delete succeeded (3 documents, 3 deleted)" in capsys.readouterr().out
    assert call("documents", "list") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["jobs", "show", "nobody"], 4, "There is no job 'nobody'."),
        (["jobs", "list", "--state", "done"], 2, "state is 'done'; give queued"),
        (["jobs", "create", "x", "--metadata", "year"], 2, "metadata is 'year'; write NAME=VALUE."),
        (["documents", "delete"], 2, "give ids of documents, or --where, or --all"),
        (["documents", "delete", "a", "--all"], 2, "and only one of them"),
        (["documents", "list", "--where", "year>many"], 2, "give numbers alone or times alone"),
        (["documents", "show", "nothing"], 4, "There is no document 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    targets: Targets, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run([*arguments, "--target", targets.ingest]) == code
    assert message in capsys.readouterr().err


def test_a_worker_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "list", "--target", "127.0.0.1:1"]) == 69
    ways = "start one with `mamba-search up` or name another with --target."
    assert capsys.readouterr().err == f"mamba-search: No ingestion worker answers at 127.0.0.1:1; {ways}\n"


class BusyServicer(ingest_pb2_grpc.IngestServiceServicer):
    """Acknowledges one document of each stream, then has no room for it any more; at last for all."""

    def __init__(self, refusals: int, pause_s: int) -> None:
        self.refusals = refusals
        self.pause_s = pause_s
        self.seen: list[list[str]] = []

    async def IngestDocuments(  # noqa: N802
        self, requests: AsyncIterator[ingest_pb2.IngestDocumentsRequest], context: Any
    ) -> AsyncIterator[ingest_pb2.IngestDocumentsResponse]:
        self.seen.append([])
        async for request in requests:
            self.seen[-1].append(request.document_id)
            yield ingest_pb2.IngestDocumentsResponse(
                document_id=request.document_id, outcome=ingest_pb2.INGEST_OUTCOME_INGESTED
            )
            pause = ingest_pb2.SlowDown(retry_delay=Duration(seconds=self.pause_s), reason="Busy.")
            yield ingest_pb2.IngestDocumentsResponse(slow_down=pause)
            if len(self.seen) <= self.refusals:
                raise Overloaded("No room.", 0.01)


async def send(refusals: int, count: int, pause_s: int = 0) -> tuple[BusyServicer, list[str]]:
    servicer, server = BusyServicer(refusals, pause_s), grpc.aio.server(interceptors=[StatusInterceptor()])
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def read() -> Iterator[Document | LoadError]:
        for number in range(count):
            time.sleep(0.005)  # where a write meets the end of a stream, gRPC tells of that in place of the reason
            yield Document(f"d{number}", "text")

    try:
        receipts = [receipt async for receipt in OverGrpc(f"127.0.0.1:{port}", 30, CallerSettings()).ingest(read())]
    finally:
        await server.stop(None)
    assert all(receipt.outcome is Outcome.INGESTED for receipt in receipts)
    return servicer, [receipt.document_id for receipt in receipts]


async def test_a_stream_that_is_refused_is_begun_again_with_what_has_no_receipt() -> None:
    servicer, receipts = await send(refusals=3, count=20)
    assert receipts == [f"d{number}" for number in range(20)]
    assert [stream[0] for stream in servicer.seen] == ["d0", "d1", "d2", "d3"]


async def test_a_stream_that_is_refused_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_stream, "REFUSALS_MAX", 2)
    with pytest.raises(Overloaded, match="No room"):
        await send(refusals=9, count=20)


async def test_nothing_is_sent_during_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(delay: float) -> None:
        waits.append(delay)
        await sleep(0)

    monkeypatch.setattr(ingest_stream.asyncio, "sleep", note)
    _, receipts = await send(refusals=0, count=30, pause_s=3600)
    assert len(receipts) == 30
    assert any(ingest_stream.PAUSE_S_MAX - 1 < wait <= ingest_stream.PAUSE_S_MAX for wait in waits)


class LeavingServicer(ingest_pb2_grpc.IngestServiceServicer):
    """Ends each stream, as if all was well, after one document."""

    async def IngestDocuments(  # noqa: N802
        self, requests: AsyncIterator[ingest_pb2.IngestDocumentsRequest], context: Any
    ) -> AsyncIterator[ingest_pb2.IngestDocumentsResponse]:
        request = await anext(requests)
        yield ingest_pb2.IngestDocumentsResponse(
            document_id=request.document_id, outcome=ingest_pb2.INGEST_OUTCOME_INGESTED
        )


async def test_a_stream_that_ends_too_soon_has_not_ingested_the_rest() -> None:
    server = grpc.aio.server()
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(LeavingServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def read() -> Iterator[Document | LoadError]:
        for number in range(20):
            time.sleep(0.05)  # a write that meets the end of the stream is an error of its own
            yield Document(f"d{number}", "text")

    receipts: list[Receipt] = []
    try:
        with pytest.raises(Unavailable, match="ended the stream"):
            await collect(OverGrpc(f"127.0.0.1:{port}", 30, CallerSettings()).ingest(read()), receipts)
    finally:
        await server.stop(None)
    assert 0 < len(receipts) < 20
