"""HTTP in the search service's process: its parts put together, as settings say. Knows no request."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mambasearch.v1 import search_pb2_grpc
from prometheus_client import CollectorRegistry

from encoder.errors import InvalidInput
from encoder.interface import Encoder
from services.door.certificates import ServerCertificates
from services.door.door import Door
from services.door.listening import is_loopback
from services.door.trusting import channel_credentials
from services.http.admission import Admission
from services.http.app import make_app
from services.http.calling import Parts
from services.http.guard import Limits
from services.http.origins import Origins
from services.http.server import listening
from services.http.service_routes import OPEN_PATHS
from services.http.settings import HttpSettings
from services.http.worker import Worker
from services.observing.calls import CallObserver

logger = logging.getLogger(__name__)


@asynccontextmanager
async def http_serving(
    settings: HttpSettings,
    *,
    search: search_pb2_grpc.SearchServiceServicer,
    encoder: Encoder,
    door: Door,
    certificates: ServerCertificates | None,
    is_serving: Callable[[], bool],
    registry: CollectorRegistry,
    observer: CallObserver | None = None,
    timeout_s: float,
) -> AsyncIterator[int]:
    """Serve HTTP as long as the block lasts; gives the port, 0 where settings want none.

    :class:`encoder.errors.InUse` where another process has the port; :class:`InvalidInput` where callers' keys would
    travel to the ingestion worker for all to see.
    """
    if not settings.http_port:
        yield 0
        return
    admission = Admission(door, OPEN_PATHS, observer)
    worker = _connect(settings, timeout_s, asks_for_keys=not door.authenticator.is_open)
    parts = Parts(
        search=search,
        encoder=encoder,
        worker=worker,
        admission=admission,
        is_serving=is_serving,
        registry=registry,
        timeout_s=timeout_s,
    )
    limits = Limits(
        settings.http_body_bytes_max,
        settings.http_body_timeout_s,
        settings.http_requests_max,
    )
    origins = Origins(settings.origins(), settings.hosts() if door.authenticator.is_open else None)
    app = make_app(parts, admission, limits, origins)
    tls = certificates.ssl_context() if certificates else None
    try:
        async with listening(app, settings.http_host, settings.http_port, tls) as port:
            logger.info("listening on %s:%d for HTTP", settings.http_host, port)
            try:
                yield port
            finally:
                parts.stopping.set()
    finally:
        await worker.close()


def _connect(settings: HttpSettings, timeout_s: float, *, asks_for_keys: bool) -> Worker:
    credentials, target = channel_credentials(settings), settings.ingest_target
    if (
        asks_for_keys
        and credentials is None
        and not settings.allow_insecure
        and not is_loopback(target.rpartition(":")[0])
    ):
        raise InvalidInput(
            "ingest_target",
            f"callers' keys would go to the ingestion worker at {target} unencrypted; ask it over TLS (tls_ca, or "
            "use_tls), or set allow_insecure to send them all the same.",
        )
    return Worker.connect(target, timeout_s, credentials)
