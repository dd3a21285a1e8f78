"""A gRPC channel whose calls carry the id and the trace of the call that they are made for. Knows no message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from encoder.call_context import Kind, current_span, outgoing_metadata


class TracedChannel:
    """Give it to a stub in the channel's place. Makes a client's span of each call where somebody traces."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._make: Any = channel  # whose types do not know that methods are registered

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC's stubs call it
    ) -> Callable[..., Any]:
        """Make what calls a method; without the task that an interceptor of gRPC's would need for each call."""
        make = self._make.unary_unary(method, request_serializer, response_deserializer, _registered_method)
        return _carrying(method, make)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC's stubs call it
    ) -> Callable[..., Any]:
        """Make what calls a method that answers with a stream."""
        make = self._make.unary_stream(method, request_serializer, response_deserializer, _registered_method)
        return _carrying(method, make)

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC's stubs call it
    ) -> Callable[..., Any]:
        """Make what calls a method between two streams."""
        make = self._make.stream_stream(method, request_serializer, response_deserializer, _registered_method)
        return _carrying(method, make)


def _carrying(method: str, multicallable: Callable[..., Any]) -> Callable[..., Any]:
    name = method.removeprefix("/")
    service, _, rpc_method = name.partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": rpc_method}

    def call(
        request: Any,  # noqa: ANN401 - a message, or an iterator of them
        *,
        timeout: float | None = None,
        metadata: grpc.aio.Metadata | None = None,
        wait_for_ready: bool | None = None,
    ) -> Any:  # noqa: ANN401 - the call's type follows the method
        parent = current_span()
        span = parent.child(name, Kind.CLIENT, attributes) if parent else None
        carried = outgoing_metadata(span)
        sent = grpc.aio.Metadata(*(metadata or ()), *carried) if carried else metadata
        made = multicallable(request, timeout=timeout, metadata=sent, wait_for_ready=wait_for_ready)
        if span is not None:
            made.add_done_callback(lambda ended: span.end(_failure(ended)))
        return made

    return call


def _failure(ended: Any) -> str:  # noqa: ANN401 - a call of any type
    """Name the status of a call that has ended; empty for OK."""
    code = ended.code()
    try:
        code.send(None)  # it has nothing to wait for
    except StopIteration as result:
        return "" if result.value is grpc.StatusCode.OK else str(result.value.name)
    code.close()
    return "UNKNOWN"
