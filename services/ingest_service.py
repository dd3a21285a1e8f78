"""The ingestion worker: ``IngestService`` over gRPC. Run with ``python -m services.ingest_service``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.errors import InvalidInput, Overloaded, PermissionDenied
from encoder.grpc_errors import code_of
from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer
from ingest.chunk_making import make_chunk_making
from ingest.collecting import on_duty
from ingest.cutting.processes import CuttingProcesses
from ingest.documents import DEFAULT_TENANT, Document
from ingest.index.interface import VectorIndex
from ingest.index.metadata_messages import metadata_from_messages
from ingest.jobs.running import JobRunner, Worker, at_work
from ingest.jobs.store import JobStore
from ingest.journal import Journal, journal_url
from ingest.pipeline import Ingestor
from ingest.read_ahead import Item
from ingest.receipts import LoadError, Receipt
from ingest.states import open_states
from services.backends import Backends, encoder_service, make_backends, serve_until
from services.door.door import make_door
from services.door.principal import caller
from services.grpc_server import GrpcServer, serving_as, stop_signal
from services.ingestion.document_methods import DocumentMethods
from services.ingestion.job_methods import JobMethods
from services.ingestion.job_rules import make_rules
from services.ingestion.outcomes import MESSAGE_OUTCOMES
from services.ingestion.pacing import Pause, with_pauses
from services.machine.local_machine import usable_cores
from services.observing.ingest_metrics import IngestMetrics
from services.observing.process import Observed, measuring, observing
from services.observing.search_metrics import IndexSizeMetrics
from services.process import run
from services.settings import IngestSettings
from services.status import unexpected

SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
# A text of 64 MiB, and what goes with it.
MESSAGE_BYTES_MAX = 65 * 1024 * 1024
_ENCODER_REQUESTS_MAX = 4
_RETRY_AFTER_S = 5.0
CUTTING_PROCESSES_DEFAULT_MAX = 4

_Context = grpc.aio.ServicerContext[Any, Any]


class IngestServicer(DocumentMethods, JobMethods):
    """Turns messages into documents, and receipts back; its exceptions become statuses in the server's interceptor."""

    def __init__(self, backends: Backends[Worker], runner: JobRunner, *, streams_max: int) -> None:
        DocumentMethods.__init__(self, backends)
        JobMethods.__init__(self, runner)
        self._check_tenant = runner.rules.check_tenant
        self._streams_max = streams_max
        self._streams = 0

    async def IngestDocuments(  # noqa: N802 - the proto's name
        self, request_iterator: AsyncIterator[ingest_pb2.IngestDocumentsRequest], context: _Context
    ) -> AsyncIterator[ingest_pb2.IngestDocumentsResponse]:
        """Ingest a stream of documents; acknowledge each, in order."""
        del context
        worker = self._backends.get()
        with self._place():
            receipts = worker.ingestor.ingest_all(_documents(request_iterator, self._check_tenant))
            async with aclosing(with_pauses(receipts, worker.ingestor)) as answers:
                async for answer in answers:
                    yield _pause_message(answer) if isinstance(answer, Pause) else _receipt_message(answer)

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


async def _documents(
    requests: AsyncIterator[ingest_pb2.IngestDocumentsRequest], check_tenant: Callable[[str], None]
) -> AsyncIterator[Item]:
    async for request in requests:
        try:
            tenant = caller().tenant_for(request.tenant) or DEFAULT_TENANT
            check_tenant(tenant)
        except (InvalidInput, PermissionDenied) as error:
            yield LoadError(request.source, error, request.document_id)
            continue
        yield Document(
            document_id=request.document_id,
            text=request.text,
            title=request.title,
            source=request.source,
            metadata=metadata_from_messages(request.metadata),
            tenant=tenant,
            growing=request.growing,
            in_place_of=request.in_place_of if request.HasField("in_place_of") else None,
        )


def _pause_message(pause: Pause) -> ingest_pb2.IngestDocumentsResponse:
    delay = Duration()
    delay.FromTimedelta(timedelta(seconds=pause.delay_s))
    return ingest_pb2.IngestDocumentsResponse(slow_down=ingest_pb2.SlowDown(retry_delay=delay, reason=pause.reason))


def _receipt_message(receipt: Receipt) -> ingest_pb2.IngestDocumentsResponse:
    error = receipt.error
    return ingest_pb2.IngestDocumentsResponse(
        document_id=receipt.document_id,
        outcome=MESSAGE_OUTCOMES[receipt.outcome],
        chunk_count=receipt.chunk_count,
        token_count=receipt.token_count,
        generation=receipt.generation,
        error=ingest_pb2.IngestError(code=code_of(error).value[0], field=receipt.field, message=str(error))
        if error
        else None,
    )


async def serve(settings: IngestSettings) -> None:
    """Serve until SIGTERM or SIGINT; jobs are given back then, and streams that do not end within seconds cut off."""
    async with observing("ingest", settings, settings.ingest_metrics_port) as observed:
        await _serve(settings, observed)


async def _serve(settings: IngestSettings, observed: Observed) -> None:
    stop = stop_signal()
    metrics = IngestMetrics(observed.registry)
    tokenizer = await asyncio.to_thread(Tokenizer.load, settings.passage_model)
    chunks = make_chunk_making(settings.chunk_rules(), tokenizer)
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    journal = await Journal.open(settings.journal_url or journal_url(settings.data_dir))
    collect_after_s = settings.collect_after_s
    processes = _cutting_processes(settings)
    cutting = CuttingProcesses(settings.passage_model, chunks.chunker, processes) if processes else None
    states = open_states(settings.data_dir, bytes_max=settings.states_bytes_max, keep_s=settings.states_keep_s)

    def make(encoder: Encoder, index: VectorIndex) -> Worker:
        ingestor = Ingestor(
            encoder,
            index,
            chunks.chunker,
            journal,
            chunk_encoder=chunks.encoder,
            cutter=cutting,
            states=states,
            batch_tokens_max=settings.ingest_batch_tokens,
            collect_after_s=collect_after_s,
            on_progress=metrics.follow(),
            on_stage=metrics.staged,
        )
        metrics.tell_oldest(lambda: ingestor.oldest_s)
        return Worker(ingestor, index)

    backends = make_backends(
        settings,
        encoder_service(settings, timeout_s=settings.encoder_timeout_s, requests_max=_ENCODER_REQUESTS_MAX),
        make,
        chunks.fingerprint,
        on_stats=IndexSizeMetrics(observed.registry).measured,
    )
    store = JobStore(journal.database, lease_s=journal.lease_s, now=journal.now)
    runner = JobRunner(
        store,
        backends.get,
        make_rules(settings),
        unexpected,
    )
    servicer = IngestServicer(backends, runner, streams_max=settings.ingest_streams_max)
    calls_max = 2 * settings.ingest_streams_max + 64
    own_calls_max = {f"/{SERVICE}/IngestDocuments": settings.ingest_streams_max}
    door = make_door(settings, "ingest", calls_max, own_calls_max, observed.calls.metrics.refused)
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, grpc_server),
        message_bytes_max=MESSAGE_BYTES_MAX,
        calls_max=calls_max,
        door=door,
        serving=serving_as(settings, settings.ingest_health_port),
        interceptors=observed.interceptors,
    )
    observed.calls.metrics.tell_serving(lambda: server.is_serving)

    async def measure() -> None:
        counts = await store.count()
        metrics.measured_jobs(
            {state.value: count for state, count in counts.by_state.items()},
            oldest_queued_s=counts.oldest_queued_s,
            dead_letters=counts.dead_letters,
        )

    try:
        async with (
            on_duty(journal, lambda: backends.get().index, collect_after_s),
            at_work(runner, stop) as jobs_given_back,
            measuring(measure),
        ):
            await serve_until(jobs_given_back, server, settings.ingest_host, settings.ingest_port, backends)
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
