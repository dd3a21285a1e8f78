"""Workers killed in the middle of a job, as processes: another start goes on, and every document counts once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, jobs_pb2

from tests.benchmarks.crashes.node import Node
from tests.loading.files import write

DOCUMENTS = 400
BAD = 10


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setenv("MAMBASEARCH_INGEST_FOLDERS", str(tmp_path / "sources"))
    return Node(tmp_path)


@asynccontextmanager
async def asking(node: Node) -> AsyncIterator[ingest_pb2_grpc.IngestServiceStub]:
    async with grpc.aio.insecure_channel(node.target("worker")) as channel:
        await channel.channel_ready()
        yield ingest_pb2_grpc.IngestServiceStub(channel)


async def get(stub: ingest_pb2_grpc.IngestServiceStub, job_id: str) -> jobs_pb2.Job:
    return await stub.GetJob(jobs_pb2.GetJobRequest(job_id=job_id))


@pytest.mark.timeout(120)
async def test_a_job_survives_the_ends_of_its_workers(node: Node, tmp_path: Path) -> None:
    rows = [json.dumps({"id": f"d{number}", "text": f"The text of document {number}."}) for number in range(DOCUMENTS)]
    rows[5 : 5 + BAD] = ["{broken"] * BAD
    source = write(tmp_path / "sources" / "rows.jsonl", "\n".join(rows))
    request = jobs_pb2.CreateIngestJobRequest(request_id="one", sources=[str(source)])
    for part in ("index", "encoder", "worker"):
        node.start(part)
    try:
        async with asking(node) as stub:
            job = await stub.CreateIngestJob(request)
            while not (await get(stub, job.job_id)).progress.documents:  # noqa: ASYNC110 - another process counts them
                await asyncio.sleep(0.02)
        assert node.stop("worker") == 0
        node.start("worker")
        async with asking(node) as stub:
            stopped = await get(stub, job.job_id)
            assert 0 < stopped.progress.documents < DOCUMENTS
            assert stopped.failed_attempts == 0
        assert await node.stop_at("worker", "upsert_chunks begins", 60)
        node.kill("worker")
        node.start("worker")
        async with asking(node) as stub:
            assert (await stub.CreateIngestJob(request)).job_id == job.job_id
            states = [one async for one in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.job_id))]
            progress = states[-1].progress
            assert states[0].state == jobs_pb2.JOB_STATE_RUNNING
            assert (states[-1].state, states[-1].reason) == (jobs_pb2.JOB_STATE_SUCCEEDED, "")
            assert (progress.documents, progress.failed) == (DOCUMENTS, BAD)
            assert progress.ingested + progress.unchanged == DOCUMENTS - BAD
            letters = await stub.ListDeadLetters(jobs_pb2.ListDeadLettersRequest(job_id=job.job_id))
            places = sorted(letter.source for letter in letters.dead_letters)
            assert places == sorted(f"{source}:{number}" for number in range(6, 6 + BAD))
            listed = await stub.ListDocuments(ingest_pb2.ListDocumentsRequest(page_size=1000))
            assert len({document.document_id for document in listed.documents}) == DOCUMENTS - BAD
    finally:
        node.close()
