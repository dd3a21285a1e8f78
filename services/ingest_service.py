"""The ingestion worker: ``IngestService`` over gRPC. Run with ``python -m services.ingest_service``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.errors import InvalidInput, NotFound, Overloaded
from encoder.grpc_errors import code_of
from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer
from ingest.chunk_encoding import make_chunk_encoder
from ingest.chunking import Chunker
from ingest.collecting import on_duty
from ingest.cutting.processes import CuttingProcesses
from ingest.documents import DEFAULT_TENANT, DOCUMENT_ID_BYTES_MAX, Document, named_tenant
from ingest.index import wire
from ingest.index.interface import DocumentKey, DocumentRecord, VectorIndex
from ingest.journal import Journal, journal_url
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome, Receipt
from ingest.states import open_states
from services.backends import Backends, make_backends, serve_until
from services.grpc_server import GrpcServer, stop_signal
from services.local_machine import usable_cores
from services.process import run
from services.settings import IngestSettings

SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
# A text of 64 MiB, and what goes with it.
MESSAGE_BYTES_MAX = 65 * 1024 * 1024
_ENCODER_REQUESTS_MAX = 4
_RETRY_AFTER_S = 5.0
CUTTING_PROCESSES_DEFAULT_MAX = 4

_OUTCOMES = {
    Outcome.INGESTED: ingest_pb2.INGEST_OUTCOME_INGESTED,
    Outcome.UPDATED: ingest_pb2.INGEST_OUTCOME_UPDATED,
    Outcome.UNCHANGED: ingest_pb2.INGEST_OUTCOME_UNCHANGED,
    Outcome.SUPERSEDED: ingest_pb2.INGEST_OUTCOME_SUPERSEDED,
    Outcome.REJECTED: ingest_pb2.INGEST_OUTCOME_REJECTED,
}

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Worker:
    """What writes to the index and what reads from it. All streams share the one writer."""

    ingestor: Ingestor
    index: VectorIndex


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """Turns messages into documents, and receipts back; its exceptions become statuses in the server's interceptor."""

    def __init__(self, backends: Backends[Worker], *, streams_max: int) -> None:
        self._backends = backends
        self._streams_max = streams_max
        self._streams = 0

    async def IngestDocuments(  # noqa: N802 - the proto's name
        self, request_iterator: AsyncIterator[ingest_pb2.IngestDocumentsRequest], context: _Context
    ) -> AsyncIterator[ingest_pb2.IngestDocumentsResponse]:
        """Ingest a stream of documents; acknowledge each, in order."""
        del context
        worker = self._backends.get()
        with self._place():
            async with aclosing(worker.ingestor.ingest_all(_documents(request_iterator))) as receipts:
                async for receipt in receipts:
                    yield _receipt_message(receipt)

    async def GetDocument(  # noqa: N802 - the proto's name
        self, request: ingest_pb2.GetDocumentRequest, context: _Context
    ) -> ingest_pb2.Document:
        """Read one document's record."""
        del context
        _check_id(request.document_id)
        key = DocumentKey(named_tenant(request.tenant), request.document_id)
        records = await self._backends.get().index.get_records([key])
        if key not in records:
            raise NotFound(f"There is no document {request.document_id!r} in the index.")
        return _record_message(records[key])

    async def DeleteDocument(  # noqa: N802 - the proto's name
        self, request: ingest_pb2.DeleteDocumentRequest, context: _Context
    ) -> ingest_pb2.DeleteDocumentResponse:
        """Take a document out of the index."""
        del context
        _check_id(request.document_id)
        count = await self._backends.get().ingestor.delete(request.document_id, named_tenant(request.tenant))
        return ingest_pb2.DeleteDocumentResponse(chunk_count=count)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._streams >= self._streams_max:
            raise Overloaded(
                f"{self._streams_max} streams are being ingested, which is the limit (ingest_streams_max); "
                f"try again in {_RETRY_AFTER_S:.0f} s.",
                _RETRY_AFTER_S,
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


async def _documents(requests: AsyncIterator[ingest_pb2.IngestDocumentsRequest]) -> AsyncIterator[Document]:
    async for request in requests:
        yield Document(
            document_id=request.document_id,
            text=request.text,
            title=request.title,
            source=request.source,
            metadata=wire.metadata_from_messages(request.metadata),
            tenant=request.tenant or DEFAULT_TENANT,
            growing=request.growing,
        )


def _check_id(document_id: str) -> None:
    id_bytes = len(document_id.encode())
    if not 1 <= id_bytes <= DOCUMENT_ID_BYTES_MAX:
        message = f"document_id has {id_bytes} bytes; 1 to {DOCUMENT_ID_BYTES_MAX} are allowed."
        raise InvalidInput("document_id", message)


def _receipt_message(receipt: Receipt) -> ingest_pb2.IngestDocumentsResponse:
    error = receipt.error
    return ingest_pb2.IngestDocumentsResponse(
        document_id=receipt.document_id,
        outcome=_OUTCOMES[receipt.outcome],
        chunk_count=receipt.chunk_count,
        token_count=receipt.token_count,
        generation=receipt.generation,
        error=ingest_pb2.IngestError(code=code_of(error).value[0], field=receipt.field, message=str(error))
        if error
        else None,
    )


def _record_message(record: DocumentRecord) -> ingest_pb2.Document:
    ingested_at = Timestamp()
    ingested_at.FromDatetime(record.ingested_at)
    return ingest_pb2.Document(
        document_id=record.document_id,
        title=record.title,
        source=record.source,
        generation=record.generation,
        chunk_count=record.chunk_count,
        token_count=record.token_count,
        char_count=record.char_count,
        content_hash=record.content_hash,
        ingested_at=ingested_at,
        metadata=wire.metadata_to_messages(record.metadata),
    )


async def serve(settings: IngestSettings) -> None:
    """Serve until SIGTERM or SIGINT; streams that have not ended a few seconds later are cut off."""
    stop = stop_signal()
    tokenizer = await asyncio.to_thread(Tokenizer.load, settings.passage_model)
    chunker, chunk_encoder = Chunker(tokenizer), make_chunk_encoder(settings.chunk_encoding, tokenizer)
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    journal = await Journal.open(settings.journal_url or journal_url(settings.data_dir))
    collect_after_s = settings.collect_after_s
    processes = _cutting_processes(settings)
    cutting = CuttingProcesses(settings.passage_model, chunker, processes) if processes else None
    states = open_states(settings.data_dir, bytes_max=settings.states_bytes_max, keep_s=settings.states_keep_s)

    def make(encoder: Encoder, index: VectorIndex) -> Worker:
        ingestor = Ingestor(
            encoder,
            index,
            chunker,
            journal,
            chunk_encoder=chunk_encoder,
            cutter=cutting,
            states=states,
            collect_after_s=collect_after_s,
        )
        return Worker(ingestor, index)

    backends = make_backends(
        settings,
        make,
        chunk_encoder.fingerprint(chunker.fingerprint),
        encoder_timeout_s=settings.encoder_timeout_s,
        requests_max=_ENCODER_REQUESTS_MAX,
    )
    servicer = IngestServicer(backends, streams_max=settings.ingest_streams_max)
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, grpc_server),
        message_bytes_max=MESSAGE_BYTES_MAX,
        calls_max=2 * settings.ingest_streams_max + 64,
    )
    try:
        async with on_duty(journal, lambda: backends.get().index, collect_after_s):
            await serve_until(stop, server, settings.ingest_host, settings.ingest_port, backends)
    finally:
        if cutting:
            await cutting.close()
        await journal.close()


def _cutting_processes(settings: IngestSettings) -> int:
    if settings.ingest_cutting_processes is not None:
        return settings.ingest_cutting_processes
    return min(CUTTING_PROCESSES_DEFAULT_MAX, usable_cores() // 2)


def main() -> int:
    """Run the process."""
    return run("ingest", IngestSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
