"""The HTTP application for tests: asked in this process, or over a socket by clients of any kind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import httpx
from mambasearch.v1 import ingest_pb2_grpc, search_pb2_grpc
from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp

from services.door.door import Door, open_door
from services.grpc_server import GrpcServer
from services.http.admission import Admission
from services.http.app import make_app
from services.http.calling import INGEST_SERVICE, Parts
from services.http.guard import Limits
from services.http.origins import Origins
from services.http.server import listening
from services.http.service_routes import OPEN_PATHS
from services.http.worker import Worker
from tests.fakes import FakeEncoder
from tests.http.fake_ingest import FakeIngest
from tests.http.fake_search import ORCHARD, FakeSearch

LIMITS = Limits(body_bytes_max=64 * 1024, body_timeout_s=0.5, requests_max=8)
DOCUMENTS = {"orchard": ("Orchard notes", ORCHARD)}


@dataclass
class Served:
    """An application, what it leans on, and a client in this process."""

    app: ASGIApp
    parts: Parts
    search: FakeSearch
    ingest: FakeIngest
    client: httpx.AsyncClient
    ready: list[bool]

    @contextlib.asynccontextmanager
    async def socket(self) -> AsyncIterator[int]:
        async with listening(self.app, "127.0.0.1", 0) as port:
            yield port


@contextlib.asynccontextmanager
async def served(
    door: Door | None = None,
    *,
    limits: Limits = LIMITS,
    origins: Sequence[str] = (),
    documents: Mapping[str, tuple[str, str]] = DOCUMENTS,
    timeout_s: float = 5.0,
    real: search_pb2_grpc.SearchServiceServicer | None = None,
) -> AsyncIterator[Served]:
    door = door or open_door()
    search, ingest = FakeSearch(documents), FakeIngest()
    worker_server = GrpcServer(
        INGEST_SERVICE,
        lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server),
        message_bytes_max=2**20,
        calls_max=16,
    )
    await worker_server.start("127.0.0.1", 0)
    registry = CollectorRegistry()
    Counter("things", "Things that were counted.", registry=registry).inc(3)
    ready = [True]
    admission = Admission(door, OPEN_PATHS)
    worker = Worker.connect(f"127.0.0.1:{worker_server.port}", 5.0)
    parts = Parts(
        search=real or search,
        encoder=FakeEncoder(),
        worker=worker,
        admission=admission,
        is_serving=lambda: ready[0],
        registry=registry,
        timeout_s=timeout_s,
    )
    hosts = frozenset({"search.example"}) if door.authenticator.is_open else None
    app = make_app(parts, admission, limits, Origins(frozenset(origins), hosts))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield Served(app, parts, search, ingest, client, ready)
    parts.stopping.set()
    await worker.close()
    await worker_server.stop()
