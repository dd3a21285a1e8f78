"""Real gRPC servers of ours for tests that are not asynchronous themselves: an event loop in a thread."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from mambasearch.v1 import ingest_pb2_grpc, search_pb2_grpc

from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.index.embedded import EmbeddedIndex
from ingest.jobs.running import at_work
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.sources.policy import EVERYTHING, SourcePolicy
from services import ingest_service, search_service
from services.backends import Backends
from services.door.door import make_door
from services.door.settings import DoorSettings
from services.grpc_server import GrpcServer, serving_as
from services.ingest_service import IngestServicer, Worker
from services.search.many import StreamLimits
from services.search.searcher import Searcher
from services.search_service import SearchServicer
from tests.job_running import make_runner

MESSAGE_BYTES_MAX = 96 * 1024 * 1024


@dataclass(frozen=True)
class Targets:
    """Where the services answer."""

    search: str
    ingest: str


@contextlib.contextmanager
def services_running(
    directory: Path,
    make_encoder: Callable[[], Encoder],
    *,
    ingest_port: int = 0,
    door: DoorSettings | None = None,
    policy: SourcePolicy = EVERYTHING,
) -> Iterator[Targets]:
    """Run the search service and an ingestion worker over one index, in a thread; behind a door where one is given."""
    ready, done = threading.Event(), threading.Event()
    found: list[Targets] = []

    async def run() -> None:
        async with _services(directory, make_encoder(), ingest_port, door, policy) as targets:
            found.append(targets)
            ready.set()
            await asyncio.to_thread(done.wait)

    def main() -> None:
        try:
            asyncio.run(run())
        finally:
            ready.set()

    thread = threading.Thread(target=main)
    thread.start()
    try:
        ready.wait()
        assert found, "the services did not start"
        yield found[0]
    finally:
        done.set()
        thread.join()


@contextlib.asynccontextmanager
async def _services(
    directory: Path, encoder: Encoder, ingest_port: int, door: DoorSettings | None, policy: SourcePolicy
) -> AsyncIterator[Targets]:
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    chunker = Chunker(tokenizer)
    info = await encoder.info()
    fingerprint = index_fingerprint(info.fingerprint, chunker.fingerprint)
    index = await EmbeddedIndex.open(directory, dimension=info.dimension, fingerprint=fingerprint)
    journal = await Journal.open()

    async def give_index(dimension: int, wanted: str) -> EmbeddedIndex:
        assert (dimension, wanted) == (index.dimension, index.fingerprint)
        return index

    searching = Backends(
        encoder, give_index, lambda used, opened: Searcher(used, opened, tokenizer), chunker.fingerprint
    )
    ingesting = Backends(
        encoder,
        give_index,
        lambda used, opened: Worker(Ingestor(used, opened, chunker, journal), opened),
        chunker.fingerprint,
    )
    assert await searching.check() is None
    assert await ingesting.check() is None
    search = SearchServicer(searching, timeout_s=10, concurrency_max=8, stream_limits=StreamLimits(idle_s=5, send_s=5))
    runner = make_runner(journal.database, ingesting.get, policy=policy)
    ingest = IngestServicer(ingesting, runner, streams_max=2)

    def register_search(server: grpc.aio.Server) -> None:
        search_pb2_grpc.add_SearchServiceServicer_to_server(search, server)

    def register_ingest(server: grpc.aio.Server) -> None:
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server)

    try:
        async with (
            _listening(search_service.SERVICE, register_search, door=door) as search_target,
            _listening(ingest_service.SERVICE, register_ingest, ingest_port, door) as ingest_target,
            at_work(runner, asyncio.Event()),
        ):
            yield Targets(search_target, ingest_target)
    finally:
        await journal.close()
        await index.close()


@contextlib.asynccontextmanager
async def _listening(
    service: str, register: Callable[[grpc.aio.Server], None], port: int = 0, door: DoorSettings | None = None
) -> AsyncIterator[str]:
    server = GrpcServer(
        service,
        register,
        message_bytes_max=MESSAGE_BYTES_MAX,
        calls_max=16,
        door=make_door(door, service.rpartition(".")[2], 16) if door else None,
        serving=serving_as(door, 0) if door else None,
    )
    await server.start("127.0.0.1", port)
    await server.set_serving(serving=True)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop()
