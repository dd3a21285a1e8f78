"""What one encoder replica does with a request: let it in, have it read, answer. Knows no Ray and no torch.

Ray Serve calls the methods by the names of the proto's methods. An exception would reach the caller as INTERNAL with a
traceback, so every refusal is set on Serve's gRPC context instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from mambasearch.v1 import encoder_pb2

from encoder.document_slices import TokenIds
from encoder.errors import EncoderUnavailable, InvalidInput, MambaSearchError, NotFound
from encoder.grpc_errors import DETAILS_KEY, code_of, status_of
from encoder.interface import TokenRow
from services.encoding.autoscaling import BUSY, TOKENS
from services.encoding.document_stream import IDLE_TIMEOUT_S, RequestStream, deadline_of, encode_document
from services.encoding.factory import EncoderFactory
from services.encoding.hooks import Hooks, Lane, QueueState
from services.encoding.scheduled import schedule
from services.encoding.scheduler import Limits
from services.encoding.service_token import check_token
from services.encoding.text_requests import encode_texts
from services.malformed import checked
from services.status import unexpected

SERVICE = "mambasearch.v1.EncoderService"

_Response = TypeVar("_Response")
_Item = TypeVar("_Item", str, TokenIds)


class ServeContext(Protocol):
    """The part of ``ray.serve.grpc_util.RayServegRPCContext`` that is used here."""

    def application(self) -> str | None:
        """Give the application that the caller asked for."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Give what the caller sent beside the request."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code."""

    def set_details(self, details: str) -> None:
        """Set the status message."""

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        """Set what follows the response."""


@dataclass(frozen=True, slots=True)
class ReplicaRules:
    """How a replica works, whatever its model. Travels to it pickled."""

    limits: Limits
    token: str | None  # that callers must show
    idle_timeout_s: float = IDLE_TIMEOUT_S


class EncoderReplica:
    """Answers ``EncoderService`` with one encoder."""

    def __init__(
        self,
        load: EncoderFactory,
        application_name: Callable[[], str],
        rules: ReplicaRules,
        make_hooks: Callable[[], Hooks] = Hooks,
    ) -> None:
        self._logger = logging.getLogger(__name__)
        self._application = application_name()
        self._rules = rules
        self._encoder = load()
        self._warm = False
        self._busy_before = (0.0, 0.0)  # the loop's time, and seconds that were busy until then
        self._scheduler, self._canary = schedule(self._encoder, rules.limits, make_hooks())

    async def EncodeQueries(  # noqa: N802 - the proto's name
        self, request: encoder_pb2.EncodeQueriesRequest, grpc_context: ServeContext
    ) -> encoder_pb2.EncodeResponse:
        """Encode search queries."""

        async def encode() -> encoder_pb2.EncodeResponse:
            texts, make_rows = list(request.queries), self._encoder.query_rows
            return await self._encode(Lane.QUERIES, "queries", texts, make_rows, request.time_left_ms)

        return await self._answer(request, encode, encoder_pb2.EncodeResponse(), grpc_context)

    async def EncodePassages(  # noqa: N802 - the proto's name
        self, request: encoder_pb2.EncodePassagesRequest, grpc_context: ServeContext
    ) -> encoder_pb2.EncodeResponse:
        """Encode passages."""

        async def encode() -> encoder_pb2.EncodeResponse:
            lane, time_left_ms = Lane.PASSAGES, request.time_left_ms
            texts = list(request.passages)
            rows: list[TokenIds] = [np.asarray(passage.token_ids) for passage in request.tokenized_passages]
            if not rows:
                return await self._encode(lane, "passages", texts, self._encoder.passage_rows, time_left_ms)
            if texts:
                raise InvalidInput(
                    "tokenized_passages",
                    f"passages holds {len(texts)} texts and tokenized_passages {len(rows)} lists of tokens; send one "
                    "kind in one request.",
                )
            return await self._encode(lane, "tokenized_passages", rows, self._encoder.token_rows, time_left_ms)

        return await self._answer(request, encode, encoder_pb2.EncodeResponse(), grpc_context)

    async def EncodeDocument(  # noqa: N802 - the proto's name
        self, request_stream: RequestStream, grpc_context: ServeContext
    ) -> AsyncIterator[encoder_pb2.EncodeDocumentResponse]:
        """Encode one document, span by span."""
        try:
            self._let_in(grpc_context)
            responses = encode_document(
                request_stream,
                self._encoder,
                self._scheduler,
                tokens_per_piece=self._rules.limits.batch_tokens,
                idle_timeout_s=self._rules.idle_timeout_s,
            )
            async with aclosing(responses):
                async for response in responses:
                    yield response
        except Exception as failure:  # noqa: BLE001 - the last line of defence
            _refuse(failure, grpc_context)
            # Serve sends a status with a response only.
            yield encoder_pb2.EncodeDocumentResponse()

    async def GetEncoderInfo(  # noqa: N802 - the proto's name
        self, request: encoder_pb2.GetEncoderInfoRequest, grpc_context: ServeContext
    ) -> encoder_pb2.EncoderInfo:
        """Say which model answers, and its limits; whoever asks learns, too, where it does not embed any more."""

        async def tell() -> encoder_pb2.EncoderInfo:
            await self._canary.check()
            info = await self._encoder.info()
            return encoder_pb2.EncoderInfo(
                model=info.model,
                fingerprint=info.fingerprint,
                dimension=info.dimension,
                query_tokens_max=info.query_tokens_max,
                passage_tokens_max=info.passage_tokens_max,
                batch_size_max=info.batch_size_max,
            )

        return await self._answer(request, tell, encoder_pb2.EncoderInfo(), grpc_context)

    async def Check(  # noqa: N802 - the name in grpc.health.v1
        self, request: health_pb2.HealthCheckRequest, grpc_context: ServeContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer a health check, of whoever asks."""
        try:
            self._check_application(grpc_context.application())
            checked(request)
            if request.service not in ("", SERVICE):
                raise NotFound(f"There is no service {request.service[:100]!r} here, only {SERVICE}.")
        except MambaSearchError as refusal:
            _refuse(refusal, grpc_context)
            return health_pb2.HealthCheckResponse()
        try:
            await self._canary.check()
        except EncoderUnavailable:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def check_health(self) -> None:
        """Raise where the replica does not embed: Ray Serve asks before the first request, and every few seconds.

        A replica that fails three times in a row is replaced.
        """
        if not self._warm:
            await self._encoder.warm_up()
            self._warm = True
        try:
            await self._canary.check()
        except EncoderUnavailable as problem:
            self._logger.warning("unhealthy: %s", problem)
            raise

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve what its autoscaling policy goes by: tokens that wait or are read, and the share of time."""
        now, busy_s = asyncio.get_running_loop().time(), self._scheduler.busy_s()
        (before, busy_before_s), self._busy_before = self._busy_before, (now, busy_s)
        elapsed_s = now - before if before else 0.0
        busy = min((busy_s - busy_before_s) / elapsed_s, 1.0) if elapsed_s > 0 else 0.0
        return {TOKENS: float(self._scheduler.tokens_present()), BUSY: busy}

    def queue_state(self, lane: Lane) -> QueueState:
        """Say what waits in a lane, for whoever measures."""
        return self._scheduler.queue_state(lane)

    async def _encode(
        self,
        lane: Lane,
        field: str,
        items: Sequence[_Item],
        make_rows: Callable[[Sequence[_Item]], Awaitable[list[TokenRow]]],
        time_left_ms: int,
    ) -> encoder_pb2.EncodeResponse:
        return await encode_texts(
            self._encoder,
            self._scheduler,
            lane,
            field,
            items,
            make_rows,
            tokens_per_piece=self._rules.limits.batch_tokens,
            deadline=deadline_of(time_left_ms),
        )

    async def _answer(
        self, request: object, work: Callable[[], Awaitable[_Response]], empty: _Response, context: ServeContext
    ) -> _Response:
        try:
            self._let_in(context)
            checked(request)
            return await work()
        except Exception as failure:  # noqa: BLE001 - the last line of defence
            _refuse(failure, context)
        return empty

    def _let_in(self, context: ServeContext) -> None:
        check_token(self._rules.token, context.invocation_metadata())
        self._check_application(context.application())

    def _check_application(self, asked_for: str | None) -> None:
        """Refuse a call for another application: Serve's proxy brings it here as long as this is the only one."""
        if asked_for and asked_for != self._application:
            raise EncoderUnavailable(
                f"The encoder service has no application {asked_for!r} yet, only {self._application!r}; try again, or "
                "correct the application's name."
            )


def _refuse(failure: Exception, context: ServeContext) -> None:
    """Answer with the status of a refusal; of anything else, outsiders learn an incident's number only."""
    error = failure if isinstance(failure, MambaSearchError) else unexpected(failure, SERVICE)
    context.set_code(code_of(error))
    context.set_details(str(error))
    context.set_trailing_metadata([(DETAILS_KEY, status_of(error).SerializeToString())])
