"""The ingestion worker over gRPC: acknowledgements, refusals, records. Encoder faked, engine real."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.errors import StorageFull
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoded, Encoder
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import DocumentRecord, VectorIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from services.backends import Backends
from services.grpc_server import GrpcServer
from services.ingest_service import MESSAGE_BYTES_MAX, SERVICE, IngestServicer, Worker
from tests.fakes import FakeEncoder
from tests.indexing import make_chunker
from tests.job_running import make_runner

CHUNKER = make_chunker(256)


class GatedEncoder(FakeEncoder):
    """Encodes passages only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        await self.gate.wait()
        return await super().encode_passages(passages)


class FullIndex(EmbeddedIndex):
    """Full, as told."""

    full = False

    async def commit_record(self, record: DocumentRecord, *, in_place_of: int | None = None) -> bool:
        if self.full:
            raise StorageFull("The disk is full.")
        return await super().commit_record(record, in_place_of=in_place_of)


@dataclass
class Running:
    encoder: GatedEncoder
    index: FullIndex
    stub: ingest_pb2_grpc.IngestServiceStub


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    encoder = GatedEncoder()
    fingerprint = index_fingerprint("fake", CHUNKER.fingerprint)
    index = await FullIndex.open(tmp_path, dimension=384, fingerprint=fingerprint, write_bytes_min=0)

    journal = await Journal.open()

    async def open_index(dimension: int, fingerprint: str) -> VectorIndex:
        return index

    def make(used: Encoder, opened: VectorIndex) -> Worker:
        return Worker(Ingestor(used, opened, CHUNKER, journal, retry_delays_s=()), opened)

    backends = Backends(encoder, open_index, make, CHUNKER.fingerprint)
    servicer = IngestServicer(backends, make_runner(journal.database, backends.get), streams_max=2)
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, grpc_server),
        message_bytes_max=MESSAGE_BYTES_MAX,
        calls_max=16,
    )
    await server.start("127.0.0.1", 0)
    assert await backends.check() is None
    options = [("grpc.max_send_message_length", MESSAGE_BYTES_MAX)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        yield Running(encoder, index, ingest_pb2_grpc.IngestServiceStub(channel))
    await server.stop()
    await backends.close()
    await journal.close()


def document(name: str, text: str = "some words", title: str = "") -> ingest_pb2.IngestDocumentsRequest:
    return ingest_pb2.IngestDocumentsRequest(document_id=name, text=text, title=title)


async def test_every_document_is_acknowledged_in_order(running: Running) -> None:
    sent = [document(f"d{number}", f"text number {number}") for number in range(150)]
    answers = [answer async for answer in running.stub.IngestDocuments(iter(sent))]
    assert [answer.document_id for answer in answers] == [request.document_id for request in sent]
    assert all(answer.outcome == ingest_pb2.INGEST_OUTCOME_INGESTED for answer in answers)
    assert all((answer.chunk_count, answer.token_count, answer.generation) == (1, 3, 1) for answer in answers)
    again = [answer async for answer in running.stub.IngestDocuments(iter([sent[7], document("d8", "new")]))]
    assert [answer.outcome for answer in again] == [
        ingest_pb2.INGEST_OUTCOME_UNCHANGED,
        ingest_pb2.INGEST_OUTCOME_INGESTED,
    ]
    assert [answer.generation for answer in again] == [1, 2]


async def test_a_growing_document_costs_what_is_new(running: Running) -> None:
    words = "The lighthouse keeper wrote this down before the lamp was lit. "
    sent = [
        ingest_pb2.IngestDocumentsRequest(document_id="log", text=words * count, growing=growing)
        for count, growing in ((20, True), (22, True), (24, False))
    ]
    answers = [answer async for answer in running.stub.IngestDocuments(iter(sent[:2]))]
    assert [answer.outcome for answer in answers] == [ingest_pb2.INGEST_OUTCOME_INGESTED] * 2
    (record,) = (await running.index.list_records("default", "", 5))[0]
    assert record.generations == (1, 2)
    assert (record.chunk_count, record.token_count) == (answers[1].chunk_count, answers[1].token_count)
    found = await running.stub.GetDocument(ingest_pb2.GetDocumentRequest(document_id="log"))
    assert (found.chunk_count, found.char_count, found.generation) == (record.chunk_count, len(words * 22), 2)
    answers = [answer async for answer in running.stub.IngestDocuments(iter(sent[2:]))]
    assert (await running.index.list_records("default", "", 5))[0][0].generations == (3,)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (document("x", " \n"), "text"),
        (document(""), "document_id"),
        (document("x" * 513), "document_id"),
        (document("a\x07b"), "document_id"),
        (document("x", title="t" * 2049), "title"),
    ],
)
async def test_a_bad_document_is_rejected_and_the_stream_goes_on(
    running: Running, bad: ingest_pb2.IngestDocumentsRequest, field: str
) -> None:
    stream = running.stub.IngestDocuments(iter([document("before"), bad, document("after")]))
    answers = [answer async for answer in stream]
    assert [answer.outcome for answer in answers] == [
        ingest_pb2.INGEST_OUTCOME_INGESTED,
        ingest_pb2.INGEST_OUTCOME_REJECTED,
        ingest_pb2.INGEST_OUTCOME_INGESTED,
    ]
    error = answers[1].error
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], field)
    assert field in error.message


async def test_a_client_gets_each_acknowledgement_before_it_sends_the_next(running: Running) -> None:
    stream = running.stub.IngestDocuments()
    for number in range(3):
        await stream.write(document(f"d{number}"))
        assert (await stream.read()).document_id == f"d{number}"
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_a_fast_client_is_made_to_wait(running: Running) -> None:
    running.encoder.gate.clear()
    stream = running.stub.IngestDocuments()
    sent = 0
    with pytest.raises(TimeoutError):  # noqa: PT012 - the loop is the statement
        async with asyncio.timeout(3):
            for number in range(400):
                await stream.write(document(f"d{number}", "word " * 20_000))
                sent += 1
    # A group in work, what is read ahead (8 MB), and what lies in the connection's own buffers.
    assert sent < 300
    stream.cancel()
    running.encoder.gate.set()


async def test_what_stops_the_whole_stream_is_its_status(running: Running) -> None:
    running.index.full = True
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async for _ in running.stub.IngestDocuments(iter([document("d")])):
            pass
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.value.details() == "The disk is full."
    status = status_pb2.Status.FromString(dict(failure.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == "STORAGE_FULL"


async def test_too_many_streams_are_refused(running: Running) -> None:
    streams = [running.stub.IngestDocuments() for _ in range(2)]
    for number, stream in enumerate(streams):
        await stream.write(document(f"d{number}"))
        await stream.read()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await running.stub.IngestDocuments().read()
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in streams:
        await stream.done_writing()


async def test_a_record_tells_what_was_ingested(running: Running) -> None:
    async for _ in running.stub.IngestDocuments(iter([document("d", "été à la plage", "Vacances")])):
        pass
    record = await running.stub.GetDocument(ingest_pb2.GetDocumentRequest(document_id="d"))
    assert (record.title, record.char_count, record.chunk_count, record.generation) == ("Vacances", 14, 1, 1)
    assert len(record.content_hash) == 64
    assert (await running.stub.DeleteDocument(ingest_pb2.DeleteDocumentRequest(document_id="d"))).chunk_count == 1
    for call, request in (
        (running.stub.GetDocument, ingest_pb2.GetDocumentRequest(document_id="d")),
        (running.stub.DeleteDocument, ingest_pb2.DeleteDocumentRequest(document_id="d")),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="There is no document 'd'") as failure:
            await call(request)
        assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_id_out_of_range_is_refused(running: Running) -> None:
    for call, request in (
        (running.stub.GetDocument, ingest_pb2.GetDocumentRequest()),
        (running.stub.DeleteDocument, ingest_pb2.DeleteDocumentRequest(document_id="x" * 513)),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=r"document_id has (0|513) bytes") as failure:
            await call(request)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
