"""The ingestion worker, asked over gRPC with the caller's own credentials: jobs belong to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from mambasearch.v1 import ingest_pb2_grpc, jobs_pb2

from encoder.errors import MambaSearchError, Unavailable
from encoder.grpc_errors import error_of

Metadata = Sequence[tuple[str, str]]

# A job of a thousand long sources, and a page of a thousand dead letters.
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024


class Worker:
    """A connection to the worker; made when it is first needed, and again when it is lost."""

    def __init__(self, channel: grpc.aio.Channel, target: str, timeout_s: float) -> None:
        self._channel = channel
        self._stub: Any = ingest_pb2_grpc.IngestServiceStub(channel)
        self._target = target
        self._timeout_s = timeout_s

    @classmethod
    def connect(cls, target: str, timeout_s: float, credentials: grpc.ChannelCredentials | None = None) -> Worker:
        """Prepare a connection, over TLS where there are credentials for it; call it inside the event loop."""
        options = [("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX)]
        if credentials is None:
            return cls(grpc.aio.insecure_channel(target, options=options), target, timeout_s)
        return cls(grpc.aio.secure_channel(target, credentials, options=options), target, timeout_s)

    async def call(self, method: str, request: Message, metadata: Metadata) -> Message:
        """Call a method of IngestService; raises the exceptions of :mod:`encoder.errors`."""
        try:
            answer: Message = await getattr(self._stub, method)(request, metadata=metadata, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        return answer

    async def watch(self, request: jobs_pb2.WatchJobRequest, metadata: Metadata) -> AsyncGenerator[jobs_pb2.Job, None]:
        """Give a job on each change, until it has ended; raises like :meth:`call`."""
        call = self._stub.WatchJob(request, metadata=metadata)
        try:
            async for job in call:
                yield job
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()

    def _error(self, error: grpc.aio.AioRpcError) -> MambaSearchError:
        return error_of(
            error.code(),
            error.details() or "",
            tuple(error.trailing_metadata() or ()),
            unavailable=Unavailable,
            service=f"the ingestion worker at {self._target}",
        )
