"""One encoder replica behind a real gRPC server, without Ray."""
# ruff: noqa: N802 - methods are named by the protocol

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from mambasearch.v1 import encoder_pb2, encoder_pb2_grpc

from encoder.interface import StreamingEncoder
from services.encoding.replica import EncoderReplica, ReplicaRules
from services.encoding.scheduler import Limits

Context = grpc.aio.ServicerContext[Any, Any]


class ServeLikeContext:
    """gRPC's context with what Ray Serve's has besides."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.set_code = context.set_code
        self.set_details = context.set_details

    def application(self) -> str | None:
        return str(dict(self._context.invocation_metadata() or ()).get("application", "")) or None

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return list(self._context.invocation_metadata() or ())

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        self._context.set_trailing_metadata(tuple(trailing_metadata))


class ServeLikeStream:
    """gRPC's request iterator with what Ray Serve's has besides; counts the messages taken."""

    def __init__(self, requests: AsyncIterator[encoder_pb2.EncodeDocumentRequest]) -> None:
        self._requests = requests
        self.taken = 0

    def __aiter__(self) -> AsyncIterator[encoder_pb2.EncodeDocumentRequest]:
        return self

    async def __anext__(self) -> encoder_pb2.EncodeDocumentRequest:
        message = await anext(self._requests)
        self.taken += 1
        return message

    def is_cancelled(self) -> bool:
        return False


class ReplicaServicer(encoder_pb2_grpc.EncoderServiceServicer):
    """Hands calls on to a replica, as Ray Serve does."""

    def __init__(self, replica: EncoderReplica) -> None:
        self.replica = replica

    async def GetEncoderInfo(self, request: encoder_pb2.GetEncoderInfoRequest, context: Context) -> Any:
        return await self.replica.GetEncoderInfo(request, ServeLikeContext(context))

    async def EncodeQueries(self, request: encoder_pb2.EncodeQueriesRequest, context: Context) -> Any:
        return await self.replica.EncodeQueries(request, ServeLikeContext(context))

    async def EncodePassages(self, request: encoder_pb2.EncodePassagesRequest, context: Context) -> Any:
        return await self.replica.EncodePassages(request, ServeLikeContext(context))

    async def EncodeDocument(
        self, requests: AsyncIterable[encoder_pb2.EncodeDocumentRequest], context: Context
    ) -> AsyncIterator[Any]:
        # Closed here, or gRPC leaves it to the garbage collector, which may come after the event loop's end.
        async with aclosing(aiter(requests)) as messages:
            async for response in self.replica.EncodeDocument(ServeLikeStream(messages), ServeLikeContext(context)):
                yield response


@dataclass(frozen=True)
class Served:
    target: str
    replica: EncoderReplica
    stub: encoder_pb2_grpc.EncoderServiceStub
    server: grpc.aio.Server


@asynccontextmanager
async def serving(
    encoder: StreamingEncoder,
    *,
    documents_max: int = 2,
    batch_tokens: int = 1024,
    idle_timeout_s: float = 30.0,
    token: str | None = None,
) -> AsyncIterator[Served]:
    limits = Limits(batch_tokens=batch_tokens, requests_max=8, tokens_max=1_000_000, documents_max=documents_max)
    rules = ReplicaRules(limits, token, idle_timeout_s)
    replica = EncoderReplica(lambda: encoder, lambda: "encoder", rules)
    server = grpc.aio.server()
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(ReplicaServicer(replica), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    try:
        yield Served(f"127.0.0.1:{port}", replica, encoder_pb2_grpc.EncoderServiceStub(channel), server)
    finally:
        await channel.close()
        await server.stop(None)
