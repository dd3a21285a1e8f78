"""Jobs, dead letters and lists over gRPC: real server, real engine, encoder faked."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from mambasearch.v1 import filter_pb2, ingest_pb2, ingest_pb2_grpc, jobs_pb2, metadata_pb2

from encoder.errors import EncoderUnavailable
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.sources.policy import EVERYTHING, SourcePolicy
from services.backends import Backends
from services.grpc_server import GrpcServer
from services.ingest_service import MESSAGE_BYTES_MAX, SERVICE, IngestServicer, Worker
from services.ingestion import pacing
from tests.job_running import make_runner, running
from tests.loading.files import write
from tests.pipelining import DIMENSION, MoodyEncoder, make_chunker


@dataclass
class Service:
    encoder: MoodyEncoder
    stub: ingest_pb2_grpc.IngestServiceStub

    async def watch(self, job_id: str) -> list[jobs_pb2.Job]:
        return [job async for job in self.stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id))]

    async def ended(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        return (await self.watch(job.job_id))[-1]


@contextlib.asynccontextmanager
async def serving(folder: Path, policy: SourcePolicy = EVERYTHING, *, retries: int = 0) -> AsyncIterator[Service]:
    encoder, chunker = MoodyEncoder(), make_chunker()
    fingerprint = index_fingerprint("fake", chunker.fingerprint)
    index = await EmbeddedIndex.open(folder, dimension=DIMENSION, fingerprint=fingerprint, write_bytes_min=0)
    journal = await Journal.open()

    async def open_index(dimension: int, fingerprint: str) -> VectorIndex:
        return index

    def make(used: Encoder, opened: VectorIndex) -> Worker:
        return Worker(Ingestor(used, opened, chunker, journal, retry_delays_s=(0.2,) * retries), opened)

    backends = Backends(encoder, open_index, make, chunker.fingerprint)
    runner = make_runner(journal.database, backends.get, policy=policy)
    servicer = IngestServicer(backends, runner, streams_max=2)
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, grpc_server),
        message_bytes_max=MESSAGE_BYTES_MAX,
        calls_max=16,
    )
    await server.start("127.0.0.1", 0)
    assert await backends.check() is None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel, running(runner):
        yield Service(encoder, ingest_pb2_grpc.IngestServiceStub(channel))
    await server.stop()
    await backends.close()
    await journal.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path / "data") as found:
        yield found


def write_rows(path: Path, count: int, text: str = "words of a row") -> str:
    rows = [{"id": f"d{number:02}", "text": text, "metadata": {"year": 2000 + number}} for number in range(count)]
    return str(write(path, "\n".join(map(json.dumps, rows))))


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code(), failure.value.details() or ""


def year(operator: str, value: int) -> filter_pb2.Filter:
    bound = {operator: metadata_pb2.MetadataValue(integer=value)}
    return filter_pb2.Filter(range=filter_pb2.FieldRange(field="metadata.year", **bound))


async def test_a_job_from_its_creation_to_its_end(service: Service, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", 12)
    request = jobs_pb2.CreateIngestJobRequest(request_id="one", sources=[source], tenant="acme")
    request.metadata["batch"].text = "x"
    job = await service.stub.CreateIngestJob(request)
    assert (await service.stub.CreateIngestJob(request)).job_id == job.job_id
    assert (job.kind, job.tenant, list(job.sources)) == (jobs_pb2.JOB_KIND_INGEST, "acme", [source])
    seen = await service.watch(job.job_id)
    assert [one.state for one in seen][-1] == jobs_pb2.JOB_STATE_SUCCEEDED
    assert all(one != other for one, other in itertools.pairwise(seen))
    ended = seen[-1]
    assert ended == await service.stub.GetJob(jobs_pb2.GetJobRequest(job_id=job.job_id))
    progress = ended.progress
    assert (progress.documents, progress.ingested, progress.failed) == (12, 12, 0)
    assert progress.chunks == 12
    assert progress.tokens > 12
    assert progress.tokens_per_s > 0
    assert progress.bytes_done == 12 * len("words of a row")
    assert ended.ended_at.ToNanoseconds() >= ended.started_at.ToNanoseconds() >= ended.created_at.ToNanoseconds() > 0
    record = await service.stub.GetDocument(ingest_pb2.GetDocumentRequest(document_id="d03", tenant="acme"))
    assert record.metadata["batch"].text == "x"
    assert (await service.stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job.job_id))).state == ended.state


async def test_jobs_are_listed_and_refused(service: Service, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", 1)
    made = []
    for number in range(5):
        request = jobs_pb2.CreateIngestJobRequest(request_id=f"r{number}", sources=[source], tenant=f"t{number % 2}")
        made.append((await service.ended(await service.stub.CreateIngestJob(request))).job_id)
    page = await service.stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=3))
    assert [job.job_id for job in page.jobs] == made[:1:-1]
    following = jobs_pb2.ListJobsRequest(page_size=9, page_token=page.next_page_token)
    rest = await service.stub.ListJobs(following)
    assert ([job.job_id for job in rest.jobs], rest.next_page_token) == (made[1::-1], "")
    asked = jobs_pb2.ListJobsRequest(tenant="t1", state=jobs_pb2.JOB_STATE_SUCCEEDED)
    assert {job.job_id for job in (await service.stub.ListJobs(asked)).jobs} == {made[1], made[3]}
    bad = grpc.StatusCode.INVALID_ARGUMENT
    for call, words in (
        (
            service.stub.ListJobs(jobs_pb2.ListJobsRequest(tenant="t1", page_token=page.next_page_token)),
            "page_token is",
        ),
        (service.stub.ListJobs(jobs_pb2.ListJobsRequest(page_token="nonsense")), "page_token is not one"),
        (service.stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=-1)), "page_size is -1"),
        (service.stub.ListJobs(jobs_pb2.ListJobsRequest(state=99)), "state is 99"),  # type: ignore[arg-type]
        (
            service.stub.CreateIngestJob(jobs_pb2.CreateIngestJobRequest(request_id="r0", sources=["/x"], tenant="t0")),
            "request_id",
        ),
        (service.stub.CreateIngestJob(jobs_pb2.CreateIngestJobRequest(request_id="r 0", sources=["/x"])), "'r 0' is"),
        (service.stub.CreateIngestJob(jobs_pb2.CreateIngestJobRequest()), "sources has 0 entries"),
        (
            service.stub.CreateIngestJob(jobs_pb2.CreateIngestJobRequest(sources=["/x"], tenant="stranger")),
            "tenant 'stranger' does not exist",
        ),
    ):
        code, details = await refusal(call)
        assert (code, words in details) == (bad, True), details
    nobody = {"job_id": "nobody"}
    for call in (
        service.stub.GetJob(jobs_pb2.GetJobRequest(**nobody)),
        service.stub.CancelJob(jobs_pb2.CancelJobRequest(**nobody)),
        service.stub.WatchJob(jobs_pb2.WatchJobRequest(**nobody)).read(),
        service.stub.ReplayDeadLetters(jobs_pb2.ReplayDeadLettersRequest(**nobody)),
    ):
        assert await refusal(call) == (grpc.StatusCode.NOT_FOUND, "There is no job 'nobody'.")


async def test_a_worker_that_may_read_nothing_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", SourcePolicy()) as service:
        request = jobs_pb2.CreateIngestJobRequest(sources=["/etc"])
        code, details = await refusal(service.stub.CreateIngestJob(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "unless it is told what (its settings ingest_folders, ingest_schemes and ingest_hosts)" in details


async def test_dead_letters_are_listed_and_replayed(service: Service, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", 5, "poison")
    job = await service.ended(await service.stub.CreateIngestJob(jobs_pb2.CreateIngestJobRequest(sources=[source])))
    assert (job.state, job.progress.failed) == (jobs_pb2.JOB_STATE_SUCCEEDED, 5)
    letters: list[jobs_pb2.DeadLetter] = []
    request = jobs_pb2.ListDeadLettersRequest(job_id=job.job_id, page_size=2)
    while True:
        page = await service.stub.ListDeadLetters(request)
        letters += page.dead_letters
        if not (token := page.next_page_token):
            break
        request.page_token = token
    assert sorted(letter.document_id for letter in letters) == [f"d{number:02}" for number in range(5)]
    assert {(letter.stage, letter.code, letter.field, letter.attempts) for letter in letters} == {
        (jobs_pb2.INGEST_STAGE_ENCODE, grpc.StatusCode.INVALID_ARGUMENT.value[0], "text", 1)
    }
    assert {letter.source for letter in letters} == {f"{source}:{number}" for number in range(1, 6)}
    write_rows(tmp_path / "rows.jsonl", 5, "cured")
    chosen = jobs_pb2.ReplayDeadLettersRequest(job_id=job.job_id, dead_letter_ids=[letters[0].dead_letter_id])
    replay = await service.ended(await service.stub.ReplayDeadLetters(chosen))
    assert (replay.kind, replay.progress.ingested) == (jobs_pb2.JOB_KIND_REPLAY, 1)
    everything = jobs_pb2.ReplayDeadLettersRequest(job_id=job.job_id)
    assert (await service.ended(await service.stub.ReplayDeadLetters(everything))).progress.ingested == 4
    left = await service.stub.ListDeadLetters(jobs_pb2.ListDeadLettersRequest(tenant="default"))
    assert (list(left.dead_letters), left.next_page_token) == ([], "")
    code, details = await refusal(service.stub.ReplayDeadLetters(everything))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "has no such dead letters" in details


async def test_documents_are_listed_and_deleted_by_a_filter(service: Service, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", 20)
    await service.ended(await service.stub.CreateIngestJob(jobs_pb2.CreateIngestJobRequest(sources=[source])))
    found: list[str] = []
    request = ingest_pb2.ListDocumentsRequest(filter=year("at_least", 2010), page_size=3)
    while True:
        page = await service.stub.ListDocuments(request)
        assert len(page.documents) <= 3
        found += [document.document_id for document in page.documents]
        if not (token := page.next_page_token):
            break
        request.page_token = token
    assert sorted(found) == [f"d{number}" for number in range(10, 20)]
    request = ingest_pb2.ListDocumentsRequest(filter=year("above", 2010), page_token=request.page_token)
    code, details = await refusal(service.stub.ListDocuments(request))
    assert (code, details.split(" is")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")
    code, details = await refusal(
        service.stub.ListDocuments(ingest_pb2.ListDocumentsRequest(filter=filter_pb2.Filter(exists="year")))
    )
    assert (code, "names a field 'year'" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    for bad in (
        jobs_pb2.DeleteByFilterRequest(),
        jobs_pb2.DeleteByFilterRequest(filter=year("below", 2010), all_documents=True),
    ):
        code, details = await refusal(service.stub.DeleteByFilter(bad))
        assert (code, details) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "filter or all_documents must be given, and not both.",
        )
    deletion = await service.stub.DeleteByFilter(jobs_pb2.DeleteByFilterRequest(filter=year("below", 2010)))
    assert deletion.filter == year("below", 2010)
    assert (await service.ended(deletion)).progress.deleted == 10
    left = await service.stub.ListDocuments(ingest_pb2.ListDocumentsRequest())
    assert sorted(document.document_id for document in left.documents) == sorted(found)
    rest = await service.stub.DeleteByFilter(jobs_pb2.DeleteByFilterRequest(all_documents=True))
    assert (await service.ended(rest)).progress.deleted == 10


async def test_a_stream_refuses_a_stranger_and_goes_on(service: Service) -> None:
    sent = [
        ingest_pb2.IngestDocumentsRequest(document_id="a", text="x", tenant="stranger"),
        ingest_pb2.IngestDocumentsRequest(document_id="b", text="x", tenant="acme"),
    ]
    one, other = [answer async for answer in service.stub.IngestDocuments(iter(sent))]
    assert (one.document_id, one.error.field) == ("a", "tenant")
    assert "'stranger' does not exist" in one.error.message
    assert (other.document_id, other.outcome) == ("b", ingest_pb2.INGEST_OUTCOME_INGESTED)


async def test_a_client_is_told_to_slow_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "QUIET_S", 0.05)
    async with serving(tmp_path / "data", retries=3) as service:
        service.encoder.failures = [EncoderUnavailable("The encoder is away.")] * 2
        sent = [ingest_pb2.IngestDocumentsRequest(document_id="a", text="x")]
        *pauses, last = [answer async for answer in service.stub.IngestDocuments(iter(sent))]
        assert pauses
        assert {(pause.slow_down.reason, pause.slow_down.retry_delay.seconds) for pause in pauses} == {
            ("The encoder is away.", 5)
        }
        assert (last.document_id, last.outcome) == ("a", ingest_pb2.INGEST_OUTCOME_INGESTED)
        assert not last.HasField("slow_down")
