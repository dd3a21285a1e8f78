"""What goes wrong inside a process, told to those outside: gRPC statuses for callers, exit codes for the shell.

The map of exceptions to statuses is :mod:`encoder.grpc_errors`, which clients share.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from encoder import errors
from encoder.grpc_errors import status_of
from services.handlers import wrapped
from services.malformed import checked, checked_stream, tolerating

logger = logging.getLogger(__name__)

# 2 is what typer answers to bad arguments; those from 69 on are named in sysexits.h.
_EXIT_CODES: dict[type[errors.MambaSearchError], int] = {
    errors.InvalidInput: 2,
    errors.NotFound: 4,
    errors.FingerprintMismatch: 5,
    errors.CheckpointError: 6,
    errors.Unavailable: 69,
    errors.InUse: 73,
    errors.StorageFull: 74,
    errors.TimedOut: 75,
    errors.Overloaded: 75,
    errors.Unauthenticated: 77,
    errors.PermissionDenied: 77,
}


def exit_code(error: errors.MambaSearchError) -> int:
    """Give the command line's exit code for an exception; 1 for one of no known class."""
    return next((_EXIT_CODES[kind] for kind in type(error).__mro__ if kind in _EXIT_CODES), 1)


def unexpected(error: Exception, where: str) -> errors.MambaSearchError:
    """Log an unforeseen exception under a new id, and make one that tells outsiders this id and nothing else.

    The log holds the classes and the lines of code, not the messages: these may quote what a user sent.
    """
    incident = secrets.token_hex(6)
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < 5:
        causes.append(f"{type(cause).__qualname__}\n{''.join(traceback.format_tb(cause.__traceback__))}")
        cause = cause.__cause__ or cause.__context__
    logger.error("incident %s in %s: %s", incident, where, "caused by ".join(causes))
    return errors.MambaSearchError(f"Something went wrong inside (incident {incident}); the service's log says what.")


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Turns the exceptions of our own handlers into statuses; gRPC's own services pass untouched."""

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
        return wrapped(
            tolerating(handler),
            method,
            unary=_guarded,
            answers=partial(_guarded_stream, check=checked),
            stream=partial(_guarded_stream, check=checked_stream),
        )


def _guarded(handler: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def guarded(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> object:
        async with aborting(context, method):
            return await handler(checked(request), context)

    return guarded


def _guarded_stream(handler: Callable[..., Any], method: str, *, check: Callable[[Any], Any]) -> Callable[..., Any]:
    """Guard a handler whose answer is a stream; ``check`` reads what it is asked, which may be one, too."""

    async def guarded(asked: object, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[object]:
        async with aborting(context, method):
            async for response in handler(check(asked), context):
                yield response

    return guarded


@asynccontextmanager
async def aborting(context: grpc.aio.ServicerContext[Any, Any], method: str) -> AsyncIterator[None]:
    """Abort the call with the status of what is raised inside."""
    try:
        yield
    except (errors.MambaSearchError, TimeoutError) as error:
        await _abort(context, error)
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence
        await _abort(context, unexpected(error, method))


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    if not isinstance(error, errors.MambaSearchError):
        error = errors.TimedOut("No answer within the deadline; try again, or allow more time.")
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort_with_status raises")
