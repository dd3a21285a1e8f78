"""An encoder replica that is observed: its calls, its queue, its batches. Knows no Ray and no torch."""
# ruff: noqa: N802 - methods are named by the protocol

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import cast

import grpc
from mambasearch.v1 import encoder_pb2

from services.encoding.counting import counting_hooks, look_from_outside
from services.encoding.document_stream import RequestStream
from services.encoding.factory import EncoderFactory
from services.encoding.hooks import Hooks
from services.encoding.replica import EncoderReplica, ReplicaRules, ServeContext
from services.observing.calls import Answering
from services.observing.encoder_metrics import QueueMetrics
from services.observing.replica import ReplicaObserving


class ObservedReplica(EncoderReplica):
    """Answers ``EncoderService`` with one encoder, and tells how it does."""

    def __init__(
        self,
        observing: ReplicaObserving,
        load: EncoderFactory,
        application_name: Callable[[], str],
        rules: ReplicaRules,
    ) -> None:
        self._is_well = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.observed = observing.begin(application_name())
        self.observed.calls.metrics.tell_serving(lambda: self._is_well)
        super().__init__(load, application_name, rules, self._make_hooks)
        self.observed.registry.register(QueueMetrics(self._look))

    async def EncodeQueries(
        self, request: encoder_pb2.EncodeQueriesRequest, grpc_context: ServeContext
    ) -> encoder_pb2.EncodeResponse:
        """Encode search queries."""
        with self._answering("EncodeQueries", grpc_context) as context:
            return await super().EncodeQueries(request, context)

    async def EncodePassages(
        self, request: encoder_pb2.EncodePassagesRequest, grpc_context: ServeContext
    ) -> encoder_pb2.EncodeResponse:
        """Encode passages."""
        with self._answering("EncodePassages", grpc_context) as context:
            return await super().EncodePassages(request, context)

    async def EncodeDocument(
        self, request_stream: RequestStream, grpc_context: ServeContext
    ) -> AsyncIterator[encoder_pb2.EncodeDocumentResponse]:
        """Encode one document, span by span."""
        with self._answering("EncodeDocument", grpc_context, stream=True) as context:
            made = super().EncodeDocument(request_stream, context)
            async with aclosing(cast("AsyncGenerator[encoder_pb2.EncodeDocumentResponse, None]", made)) as responses:
                async for response in responses:
                    yield response

    async def GetEncoderInfo(
        self, request: encoder_pb2.GetEncoderInfoRequest, grpc_context: ServeContext
    ) -> encoder_pb2.EncoderInfo:
        """Say which model answers, and its limits."""
        with self._answering("GetEncoderInfo", grpc_context) as context:
            return await super().GetEncoderInfo(request, context)

    def __del__(self) -> None:
        """Send what is left; Ray Serve calls it before it ends a replica."""
        # Threads do nothing any more while Python ends, and who waits for one waits for ever.
        if hasattr(self, "observed") and not sys.is_finalizing():
            self.observed.close()
            del self.observed

    def _make_hooks(self) -> Hooks:
        return counting_hooks(self.observed.encoder, self._note_wellness)

    def _note_wellness(self, is_well: bool) -> None:  # noqa: FBT001 - a hook's argument
        self._is_well = is_well

    def _look(self, lane: str) -> tuple[int, int, float] | None:
        """Ask for the queue; zeros where nobody has called yet."""
        return (0, 0, 0.0) if self._loop is None else look_from_outside(self._loop, self.queue_state, lane)

    @contextmanager
    def _answering(self, method: str, context: ServeContext, *, stream: bool = False) -> Iterator[ServeContext]:
        self._loop = asyncio.get_running_loop()
        metadata = context.invocation_metadata()
        with self.observed.calls.answering(f"EncoderService/{method}", metadata, stream=stream) as answering:
            yield _Noting(context, answering)


class _Noting:
    """Serve's context, which notes the status that is set."""

    def __init__(self, context: ServeContext, answering: Answering) -> None:
        self._context = context
        self._answering = answering

    def application(self) -> str | None:
        return self._context.application()

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self._context.invocation_metadata()

    def set_code(self, code: grpc.StatusCode) -> None:
        self._answering.code = code.name
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        self._context.set_details(details)

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        self._context.set_trailing_metadata(trailing_metadata)
