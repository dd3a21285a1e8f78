"""Calls to one service over gRPC: sent again where the service was away or full; statuses become exceptions.

Knows no message.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import grpc

from encoder.errors import EncoderUnavailable, MambaSearchError, Overloaded
from encoder.grpc_errors import error_of

_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_MILLISECONDS_MAX = 2**32 - 1
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 2.0
# What grpc.aio says of a write that failed, and how long the service's own word may come after it.
_FAILED_WRITE = "Internal error from Core"
_STATUS_TIMEOUT_S = 1.0
_TEMPORARY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

_Result_co = TypeVar("_Result_co", covariant=True)


class Attempt(Protocol[_Result_co]):
    """One sending of a call."""

    def __call__(self, metadata: grpc.aio.Metadata, timeout_s: float) -> Awaitable[_Result_co]:
        """Send it, to end within ``timeout_s``."""


class Connection:
    """A channel to the encoder service; make it inside the event loop that uses it."""

    def __init__(self, target: str, *, attempts_max: int, token: str | None = None) -> None:
        self.service = f"the encoder service at {target}"
        self._attempts_max = attempts_max
        self._shown = token_metadata(token)
        self.channel = grpc.aio.insecure_channel(
            target,
            options=[
                ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
                ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
                # A restarted encoder is found again within two seconds (gRPC's own maximum is two minutes).
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 2000),
            ],
        )

    async def call(self, attempt: Attempt[_Result_co], application: str, timeout_s: float) -> _Result_co:
        """Send a call to one of the service's applications, at most ``attempts_max`` times and within ``timeout_s``."""
        metadata = grpc.aio.Metadata(("application", application), *self._shown)
        deadline = time.monotonic() + timeout_s
        backoff_s = _BACKOFF_FIRST_S
        for number in range(1, self._attempts_max + 1):
            try:
                return await attempt(metadata, max(deadline - time.monotonic(), 0.001))
            except grpc.aio.AioRpcError as rpc_error:
                code, error = rpc_error.code(), self._error_of(rpc_error)
            wait_s = backoff_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads clients, hides nothing
            if isinstance(error, Overloaded):
                wait_s = max(wait_s, error.retry_after_s)
            if code not in _TEMPORARY or number == self._attempts_max or time.monotonic() + wait_s >= deadline:
                raise error
            await asyncio.sleep(wait_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
        raise AssertionError("attempts_max is at least 1")

    async def close(self) -> None:
        """Close the channel; calls under way fail."""
        await self.channel.close()

    def _error_of(self, error: grpc.aio.AioRpcError) -> MambaSearchError:
        return error_of(
            error.code(),
            error.details() or "",
            tuple(error.trailing_metadata()),
            unavailable=EncoderUnavailable,
            service=self.service,
        )


def token_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Give the metadata that show a service token; none where there is no token."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


def milliseconds(timeout_s: float) -> int:
    """Give a time as the service is told it, rounded up."""
    return min(math.ceil(timeout_s * 1000), _MILLISECONDS_MAX)


class StreamEnd:
    """How a call with a stream of requests ended, as the service told it.

    A service may end a call while its client still writes. grpc.aio then lets the failed write replace the call's
    status, sometimes before and sometimes after it has come (github.com/grpc/grpc/issues/36066); so each status is
    noted as it comes.
    """

    def __init__(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        self._told = asyncio.Event()
        self._status: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    async def told(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Give what the service told in place of ``error``, which reading the call's responses raised."""
        if error.details() != _FAILED_WRITE:
            return error
        with suppress(TimeoutError):
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                await self._told.wait()
        return self._status or error

    def _note(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        code, details, trailing = _ready(call.code()), _ready(call.details()), _ready(call.trailing_metadata())
        if details != _FAILED_WRITE and not self._told.is_set():
            self._status = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)
            self._told.set()


def _ready(coroutine: Coroutine[Any, Any, _Result_co]) -> _Result_co:
    """Give the result of a coroutine that has nothing to wait for: a task would run when it may be another."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        value: _Result_co = result.value
        return value
    raise RuntimeError("a call that has ended knows its status")
