"""What one encoder replica does with a request: check it, wait for a turn, encode, answer. Knows no Ray and no torch.

Ray Serve calls the methods by the names of the proto's methods. An exception would reach the caller as INTERNAL with a
traceback, so every refusal is set on Serve's gRPC context instead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from mambasearch.v1 import encoder_pb2

from encoder.client_requests import split
from encoder.document_slices import shifted
from encoder.errors import EncoderUnavailable, InvalidInput, MambaSearchError, NotFound
from encoder.grpc_errors import DETAILS_KEY, code_of, status_of
from encoder.interface import Encoded
from services.document_stream import IDLE_TIMEOUT_S, RequestStream, encode_document
from services.encoder_factory import EncoderFactory
from services.status import unexpected
from services.telemetry import configure_logging
from services.turns import Lane, Turns

SERVICE = "mambasearch.v1.EncoderService"
# A passage's usual length: a document's tokens get turns as long as passages do.
_TOKENS_PER_PASSAGE = 256
_CHARACTERS_PER_TOKEN = 4

_Response = TypeVar("_Response")
_Item = TypeVar("_Item", str, Sequence[int])


class ServeContext(Protocol):
    """The part of ``ray.serve.grpc_util.RayServegRPCContext`` that is used here."""

    def application(self) -> str | None:
        """Give the application that the caller asked for."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code."""

    def set_details(self, details: str) -> None:
        """Set the status message."""

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        """Set what follows the response."""


class EncoderReplica:
    """Answers ``EncoderService`` with one encoder."""

    def __init__(
        self,
        load: EncoderFactory,
        application_name: Callable[[], str],
        *,
        waiting_max: int,
        documents_max: int,
        passages_per_turn: int,
        log_level: str,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        configure_logging("encoder", log_level)
        self._logger = logging.getLogger(__name__)
        self._application = application_name()
        self._encoder = load()
        self._turns = Turns(waiting_max, documents_max)
        self._passages_per_turn = passages_per_turn
        self._idle_timeout_s = idle_timeout_s

    async def EncodeQueries(  # noqa: N802 - the proto's name
        self, request: encoder_pb2.EncodeQueriesRequest, grpc_context: ServeContext
    ) -> encoder_pb2.EncodeResponse:
        """Encode search queries."""

        async def encode() -> encoder_pb2.EncodeResponse:
            texts = list(request.queries)
            return await self._encode("queries", texts, Lane.QUERIES, len(texts), self._encoder.encode_queries)

        return await self._answer(encode, encoder_pb2.EncodeResponse(), grpc_context)

    async def EncodePassages(  # noqa: N802 - the proto's name
        self, request: encoder_pb2.EncodePassagesRequest, grpc_context: ServeContext
    ) -> encoder_pb2.EncodeResponse:
        """Encode passages."""

        async def encode() -> encoder_pb2.EncodeResponse:
            texts, rows = list(request.passages), [list(passage.token_ids) for passage in request.tokenized_passages]
            per_turn = self._passages_per_turn
            if not rows:
                return await self._encode("passages", texts, Lane.PASSAGES, per_turn, self._encoder.encode_passages)
            if texts:
                raise InvalidInput(
                    "tokenized_passages",
                    f"passages holds {len(texts)} texts and tokenized_passages {len(rows)} lists of tokens; send one "
                    "kind in one request.",
                )
            encode_rows = self._encoder.encode_tokenized_passages
            return await self._encode("tokenized_passages", rows, Lane.PASSAGES, per_turn, encode_rows)

        return await self._answer(encode, encoder_pb2.EncodeResponse(), grpc_context)

    async def EncodeDocument(  # noqa: N802 - the proto's name
        self, request_stream: RequestStream, grpc_context: ServeContext
    ) -> AsyncIterator[encoder_pb2.EncodeDocumentResponse]:
        """Encode one document, span by span."""
        try:
            self._check_application(grpc_context.application())
            responses = encode_document(
                request_stream,
                self._encoder,
                self._turns,
                tokens_per_turn=self._passages_per_turn * _TOKENS_PER_PASSAGE,
                idle_timeout_s=self._idle_timeout_s,
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
        """Say which model answers, and its limits."""
        del request

        async def tell() -> encoder_pb2.EncoderInfo:
            info = await self._encoder.info()
            return encoder_pb2.EncoderInfo(
                model=info.model,
                fingerprint=info.fingerprint,
                dimension=info.dimension,
                query_tokens_max=info.query_tokens_max,
                passage_tokens_max=info.passage_tokens_max,
                batch_size_max=info.batch_size_max,
            )

        return await self._answer(tell, encoder_pb2.EncoderInfo(), grpc_context)

    async def Check(  # noqa: N802 - the name in grpc.health.v1
        self, request: health_pb2.HealthCheckRequest, grpc_context: ServeContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer a health check: a replica that can be asked has its model loaded."""

        async def check() -> health_pb2.HealthCheckResponse:
            if request.service not in ("", SERVICE):
                raise NotFound(f"There is no service {request.service[:100]!r} here, only {SERVICE}.")
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

        return await self._answer(check, health_pb2.HealthCheckResponse(), grpc_context)

    async def _encode(
        self,
        field: str,
        items: Sequence[_Item],
        lane: Lane,
        items_per_turn: int,
        encode: Callable[[Sequence[_Item]], Awaitable[Encoded]],
    ) -> encoder_pb2.EncodeResponse:
        info = await self._encoder.info()
        _check_items(field, items, info.batch_size_max)
        timings = encoder_pb2.EncodeTimings()
        parts: list[Encoded] = []
        with self._turns.request():
            for start, some in _cut_into_turns(items, items_per_turn, self._passages_per_turn * _TOKENS_PER_PASSAGE):
                asked = time.perf_counter()
                async with self._turns.turn(lane):
                    begun = time.perf_counter()
                    try:
                        part = await encode(some)
                    except InvalidInput as error:
                        raise shifted(error, start, field) from None
                    ended = time.perf_counter()
                parts.append(part)
                timings.queue_time_ms += (begun - asked) * 1000
                timings.tokenize_time_ms += part.tokenize_time_s * 1000
                timings.encode_time_ms += (ended - begun - part.tokenize_time_s) * 1000
        embeddings = np.concatenate([part.embeddings for part in parts]).astype("<f4", copy=False)
        return encoder_pb2.EncodeResponse(
            embeddings=embeddings.tobytes(),
            dimension=embeddings.shape[1],
            token_counts=[count for part in parts for count in part.token_counts],
            timings=timings,
            fingerprint=info.fingerprint,
        )

    async def _answer(
        self, work: Callable[[], Awaitable[_Response]], empty: _Response, context: ServeContext
    ) -> _Response:
        try:
            self._check_application(context.application())
            return await work()
        except Exception as failure:  # noqa: BLE001 - the last line of defence
            _refuse(failure, context)
        return empty

    def _check_application(self, asked_for: str | None) -> None:
        """Refuse a call for another application: Serve's proxy brings it here as long as this is the only one."""
        if asked_for and asked_for != self._application:
            raise EncoderUnavailable(
                f"The encoder service has no application {asked_for!r} yet, only {self._application!r}; try again, or "
                "correct the application's name."
            )


def _cut_into_turns(items: Sequence[_Item], items_max: int, tokens_max: int) -> Iterator[tuple[int, Sequence[_Item]]]:
    """Cut items into turns, each with its first place: of ``items_max``, or of about ``tokens_max`` tokens, or of one.

    Whoever comes next waits for the end of a turn.
    """
    tokens = [len(item) // _CHARACTERS_PER_TOKEN if isinstance(item, str) else len(item) for item in items]
    return split(items, tokens, tokens_max, items_max)


def _refuse(failure: Exception, context: ServeContext) -> None:
    """Answer with the status of a refusal; of anything else, outsiders learn an incident's number only."""
    error = failure if isinstance(failure, MambaSearchError) else unexpected(failure, SERVICE)
    context.set_code(code_of(error))
    context.set_details(str(error))
    context.set_trailing_metadata([(DETAILS_KEY, status_of(error).SerializeToString())])


def _check_items(field: str, items: Sequence[_Item], batch_size_max: int) -> None:
    if not 1 <= len(items) <= batch_size_max:
        raise InvalidInput(field, f"{field} holds {len(items)} texts; 1 to {batch_size_max} are allowed.")
    for place, item in enumerate(items):
        name = f"{field}[{place}]"
        if isinstance(item, str) and not item.strip():
            raise InvalidInput(name, f"{name} is empty or only white space.")
        if not item:
            raise InvalidInput(name, f"{name} is empty; give at least one token.")
