"""From a route to what answers: the handlers that gRPC has, too, the ingestion worker, the encoder. Knows no JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from google.protobuf.message import Message
from mambasearch.v1 import ingest_pb2, jobs_pb2, search_pb2, search_pb2_grpc
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from encoder.errors import PermissionDenied, Unauthenticated
from encoder.interface import Encoder
from services.door.requests import tokens_of
from services.door.rules import EMBEDDINGS
from services.http.admission import Admission
from services.http.worker import Metadata, Worker

SEARCH_SERVICE = search_pb2.DESCRIPTOR.services_by_name["SearchService"].full_name
INGEST_SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
WATCH_JOB = f"/{INGEST_SERVICE}/WatchJob"

_Answer = TypeVar("_Answer")


class Parts:
    """What routes answer with."""

    def __init__(
        self,
        *,
        search: search_pb2_grpc.SearchServiceServicer,
        encoder: Encoder,
        worker: Worker,
        admission: Admission,
        is_serving: Callable[[], bool],
        registry: CollectorRegistry,
        timeout_s: float,
    ) -> None:
        self.is_serving = is_serving
        self.registry = registry
        self.stopping = asyncio.Event()
        self._search = search
        self._encoder = encoder
        self._worker = worker
        self._admission = admission
        self._timeout_s = timeout_s

    async def ask_search(self, request: Request, method: str, message: Message) -> Message:
        """Have a method of SearchService answer, as it answers gRPC."""
        name = f"/{SEARCH_SERVICE}/{method}"
        async with self._admission.admitted(request, name, message, self._timeout_s) as call:
            answer: Message = await getattr(self._search, method)(message, HttpContext(request))
            call.tokens = tokens_of(answer)
        return answer

    async def ask_encoder(
        self, request: Request, encode: Callable[[Encoder], Awaitable[tuple[_Answer, int]]]
    ) -> _Answer:
        """Have the encoder answer; ``encode`` gives the answer and the tokens that it cost."""
        async with self._admission.admitted(request, EMBEDDINGS, None, self._timeout_s) as call:
            answer, call.tokens = await encode(self._encoder)
        return answer

    async def ask_worker(self, request: Request, method: str, message: Message) -> Message:
        """Have a method of IngestService answer, with the caller's credentials."""
        credentials = self._passed_on(request)
        async with self._admission.admitted(request, f"/{INGEST_SERVICE}/{method}", message, self._timeout_s):
            return await self._worker.call(method, message, credentials)

    async def watch_job(self, request: Request, job_id: str) -> AsyncGenerator[jobs_pb2.Job, None]:
        """Follow a job, for as long as the caller's key is good."""
        message = jobs_pb2.WatchJobRequest(job_id=job_id)
        credentials = self._passed_on(request)
        async with (
            self._admission.admitted(request, WATCH_JOB, message, None) as call,
            aclosing(self._worker.watch(message, credentials)) as jobs,
        ):
            async for job in jobs:
                self._admission.door.authenticator.check_still_good(call.principal)
                yield job

    def check_may_see_metrics(self, request: Request) -> None:
        """Raise :class:`PermissionDenied` where the caller is not one who runs the service."""
        if not request.state.principal.has_one_of(frozenset()):
            raise PermissionDenied("/metrics needs the role admin, which this caller has not.")

    def _passed_on(self, request: Request) -> Metadata:
        """Give what the worker is told of a request: who asks, and which request it is."""
        headers = request.headers
        if "authorization" not in headers and not self._admission.door.authenticator.is_open:
            # Our own certificate is all that the worker would see, and it stands for us, not for the caller.
            message = "Jobs are asked for with a key or a token, not with a certificate; send authorization: Bearer …"
            raise Unauthenticated(message)
        told = {name: headers[name] for name in ("authorization", "traceparent") if name in headers}
        return (*told.items(), ("x-request-id", request.state.request_id))


class HttpContext:
    """What handlers of gRPC want to know of a call."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def time_remaining(self) -> float | None:
        """Give the client's deadline: HTTP has none, whoever waits no longer hangs up."""
        return None

    def invocation_metadata(self) -> Metadata:
        """Give the headers."""
        return tuple(self._request.headers.items())
