"""What stands outermost in a gRPC server of ours: each call is observed, whatever becomes of it further in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from encoder.call_context import REQUEST_ID_KEY
from services.handlers import wrapped
from services.observing.calls import Answering, CallObserver

_Context = grpc.aio.ServicerContext[Any, Any]
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Observes the calls of our own services; gRPC's own (health, reflection) pass unseen."""

    def __init__(self, observer: CallObserver) -> None:
        self._observer = observer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith("/grpc."):
            return handler
        name = method.rpartition(".")[2]  # the service without its package, and the method
        return wrapped(handler, name, unary=self._around, answers=self._around_stream, stream=self._around_stream)

    def _around(self, handler: Callable[..., Any], name: str) -> Callable[..., Any]:
        async def observed(request: object, context: _Context) -> object:
            metadata = context.invocation_metadata() or ()
            with self._observer.answering(name, metadata) as answering, _status_noted(answering, context):
                await _tell_id(answering, metadata, context)
                return await handler(request, context)

        return observed

    def _around_stream(self, handler: Callable[..., Any], name: str) -> Callable[..., Any]:
        async def observed(asked: object, context: _Context) -> AsyncIterator[object]:
            metadata = context.invocation_metadata() or ()
            with (
                self._observer.answering(name, metadata, stream=True) as answering,
                _status_noted(answering, context),
            ):
                await _tell_id(answering, metadata, context)
                async for response in handler(asked, context):
                    yield response

        return observed


async def _tell_id(answering: Answering, metadata: Iterable[tuple[str, str | bytes]], context: _Context) -> None:
    """Tell a client that named its call nothing what it is called here, for it to quote."""
    if all(key != REQUEST_ID_KEY for key, _ in metadata):
        await context.send_initial_metadata(((REQUEST_ID_KEY, answering.call.request_id),))


@contextmanager
def _status_noted(answering: Answering, context: _Context) -> Iterator[None]:
    """Note with what status the call ends."""
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        remaining_s = context.time_remaining()
        expired = remaining_s is not None and remaining_s <= 0
        answering.code = "DEADLINE_EXCEEDED" if expired else "CANCELLED"
        raise
    except grpc.aio.AbortError:
        answering.code = _name(context.code())
        raise
    except Exception:
        answering.code = "UNKNOWN"
        raise
    answering.code = _name(context.code())


def _name(code: grpc.StatusCode | int | None) -> str:
    """Name a status as gRPC's context gives it: a code, its number, or nothing where it is OK."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODES.get(code or 0, "UNKNOWN")
