"""What every request passes before a route sees it, and every answer after it: limits, identity, headers.

A body is read whole here, within its limits, after the caller is known. Who hangs up is not worked for any more.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.http.origins import Origins
from services.http.problems import Problem, answer_of, problem_of
from services.status import unexpected

REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_BUSY_RETRY_AFTER_S = 1.0
# Bodies in memory at once, as a multiple of the longest one: most are a thousandth of it.
_BODIES_MAX = 16

# No page but ours, nothing from elsewhere, no scripts but our files.
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request may bring, and how long it may take to bring and to take."""

    body_bytes_max: int
    body_timeout_s: float
    requests_max: int


class Guard:
    """Wraps the application. ``admit`` says who sends a request, by its headers, or raises.

    ``count_refusal`` is asked about each request in the end.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        origins: Origins,
        admit: Callable[[Scope], Awaitable[None]],
        count_refusal: Callable[[Scope], None],
    ) -> None:
        self._app = app
        self._limits = limits
        self._origins = origins
        self._admit = admit
        self._count_refusal = count_refusal
        self._running = 0
        self._body_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", scope["type"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        asked = headers.get(REQUEST_ID, "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        sending = _Sending(send, {REQUEST_ID: request_id, **SECURITY_HEADERS})
        try:
            with self._place():
                self._origins.check(scope["method"], headers)
                await self._admit(scope)
                with self._room_for_a_body(headers) as bytes_max:
                    body = await self._read_body(receive, headers, bytes_max)
                    await _answer(self._app, scope, body, receive, sending)
        except _Gone:
            return
        except Exception as error:  # noqa: BLE001 - the last line of defence
            if sending.started:
                # Half an answer is out: all that is left is to close the connection, which uvicorn does.
                logger.warning("request %s was cut off: %s", request_id, type(error).__name__)
                return
            problem = error if isinstance(error, Problem) else _problem(error, scope["path"])
            answer = answer_of(problem, scope, {"connection": "close"})
            await answer(scope, receive, sending)
        finally:
            self._count_refusal(scope)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._running >= self._limits.requests_max:
            message = f"{self._limits.requests_max} requests are under way, which is the limit (http_requests_max)."
            raise Problem(429, "RESOURCE_EXHAUSTED", message, retry_after_s=_BUSY_RETRY_AFTER_S)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    @contextmanager
    def _room_for_a_body(self, headers: Mapping[str, str]) -> Iterator[int]:
        """Take the announced length, or the longest one, out of what all bodies may have together."""
        bytes_max = self._limits.body_bytes_max
        length = headers.get("content-length", "0")
        wanted = int(length) if length.isdecimal() and "transfer-encoding" not in headers else bytes_max
        if wanted > bytes_max:
            raise _too_large(bytes_max)
        if self._body_bytes + wanted > _BODIES_MAX * bytes_max:
            message = "The requests under way are too large together; try again in a moment."
            raise Problem(429, "RESOURCE_EXHAUSTED", message, retry_after_s=_BUSY_RETRY_AFTER_S)
        self._body_bytes += wanted
        try:
            yield wanted
        finally:
            self._body_bytes -= wanted

    async def _read_body(self, receive: Receive, headers: Mapping[str, str], bytes_max: int) -> bytes:
        if not bytes_max and "transfer-encoding" not in headers:
            await receive()
            return b""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    part = message.get("body", b"")
                    size += len(part)
                    if size > bytes_max:
                        raise _too_large(bytes_max)
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            message_text = f"The body did not arrive within {self._limits.body_timeout_s:g} s (http_body_timeout_s)."
            raise Problem(408, "DEADLINE_EXCEEDED", message_text) from None


class _Gone(Exception):
    """The client hung up."""


class _Sending:
    """Passes an answer on, with our headers."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send = send
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message.get("headers", [])}
            own = [header for header in self._headers if header[0] not in given]
            message = {**message, "headers": [*message.get("headers", []), *own]}
            self.started = True
        await self._send(message)


async def _answer(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Have the application answer; stop it as soon as the client hangs up."""
    gone = asyncio.Event()
    given = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    answering = asyncio.ensure_future(app(scope, replay, send))
    watching = asyncio.ensure_future(watch())
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise _Gone
        answering.result()
    finally:
        gone.set()
        answering.cancel()
        watching.cancel()
        await asyncio.gather(answering, watching, return_exceptions=True)


def _too_large(bytes_max: int) -> Problem:
    message = f"The body is longer than {bytes_max} bytes, which is the limit (http_body_bytes_max); send less at once."
    return Problem(413, "INVALID_ARGUMENT", message, "body")


def _problem(error: Exception, path: str) -> Problem:
    try:
        return problem_of(error)
    except AssertionError:
        return problem_of(unexpected(error, path))
