"""What a call carries beside its message: an id, and where it stands in a trace. Knows no library of tracing.

A server begins a call with what its client sent (:func:`accept`, :func:`called`), and clients of ours send it on
(:func:`outgoing_metadata`). Code in between marks what takes time with :func:`span`; where nobody traces, that is a
look at a context variable.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Protocol, Self, TypeVar

REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"
TRACESTATE_KEY = "tracestate"
# What a client names a request goes into logs: a word that could be nothing else there.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# https://www.w3.org/TR/trace-context/ version 00; an id of zeros alone names nothing.
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_CHARS_MAX = 512

Headers = tuple[tuple[str, str], ...]
Value = str | int | float | bool
_Kept = TypeVar("_Kept")


class Kind(Enum):
    """Which side of a call a span is of, in OpenTelemetry's words."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Span(Protocol):
    """Something that took time, within a trace."""

    def child(
        self,
        name: str,
        kind: Kind = Kind.INTERNAL,
        attributes: Mapping[str, Value] | None = None,
        links: Sequence[Span] = (),
    ) -> Span:
        """Begin a span inside this one, which ``links`` say had its causes elsewhere, too."""

    def root(self, name: str, attributes: Mapping[str, Value] | None = None, links: Sequence[Span] = ()) -> Span:
        """Begin a trace of its own."""

    def accept(self, name: str, headers: Headers) -> Span:
        """Begin a server's span in the trace that a client's headers name, or in a new one."""

    def set(self, name: str, value: Value) -> None:
        """Say something about it."""

    def headers(self) -> Headers:
        """Give what a server needs to go on with the trace; nothing where it is none."""

    def end(self, failure: str = "") -> None:
        """End it; ``failure`` is the code or class of what went wrong."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as its server sees it; what is in no call has no id."""

    request_id: str = ""
    trace_headers: Headers = ()  # as the client sent them
    notes: dict[str, Value] = field(default_factory=dict)  # what its handler measured, for one line of the log

    @property
    def trace_id(self) -> str:
        """Name the client's trace, in 32 hexadecimal digits; empty where there is none."""
        return _trace_id(self.trace_headers)


_CALL: ContextVar[Call | None] = ContextVar("call", default=None)
_SPAN: ContextVar[Span | None] = ContextVar("span", default=None)


def accept(metadata: Iterable[tuple[str, str | bytes]]) -> Call:
    """Read a call's id and trace out of its metadata or headers; what fits no standard is left out, not refused.

    A call without an id, or with one that is no plain word, gets a new one.
    """
    found = {key.lower(): value for key, value in metadata if isinstance(value, str)}
    request_id, parent, state = (found.get(key, "") for key in (REQUEST_ID_KEY, TRACEPARENT_KEY, TRACESTATE_KEY))
    headers: Headers = ()
    if _TRACEPARENT.fullmatch(parent):
        headers = ((TRACEPARENT_KEY, parent),)
        if state and len(state) <= _TRACESTATE_CHARS_MAX and state.isascii() and state.isprintable():
            headers += ((TRACESTATE_KEY, state),)
    return Call(request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(8), headers)


def current_call() -> Call | None:
    """Give the call that is being answered here."""
    return _CALL.get()


def current_span() -> Span | None:
    """Give the span that is open here; None where nobody traces."""
    return _SPAN.get()


def current_trace_id() -> str:
    """Name the trace that is open here, ours or the client's; empty where there is none."""
    span = _SPAN.get()
    call = _CALL.get()
    return (_trace_id(span.headers()) if span else "") or (call.trace_id if call else "")


def outgoing_metadata(client: Span | None = None) -> Headers:
    """Give what a client sends along: the id of the call that it is made for, and the trace.

    ``client`` is the client's own span of what it sends; without, the current one stands for it.
    """
    call, span = _CALL.get(), client or _SPAN.get()
    headers = span.headers() if span else ()
    if call is None:
        return headers
    return ((REQUEST_ID_KEY, call.request_id), *(headers or call.trace_headers))


@contextmanager
def called(call: Call) -> Iterator[None]:
    """Answer a call inside."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _forget(_CALL, token)


def trace_with(origin: Span | None) -> None:
    """Have all that is begun from here on traced, by what begins traces; for a process's main function."""
    _SPAN.set(origin)


@contextmanager
def within(span: Span | None) -> Iterator[None]:
    """Have what is begun inside be of this span, which somebody else ends."""
    token = _SPAN.set(span)
    try:
        yield
    finally:
        _forget(_SPAN, token)


class Opened:
    """A span that is current inside, and ends there; does nothing without one. An exception inside is its failure."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Self:
        if self._span is not None:
            self._token = _SPAN.set(self._span)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._span is not None and self._token is not None:
            _forget(_SPAN, self._token)
            self._span.end(kind.__name__ if kind else "")

    def set(self, name: str, value: Value) -> None:
        """Say something about it."""
        if self._span is not None:
            self._span.set(name, value)


def span(name: str, attributes: Mapping[str, Value] | None = None) -> Opened:
    """Mark what takes time: a span inside the current one."""
    parent = _SPAN.get()
    return Opened(parent.child(name, Kind.INTERNAL, attributes) if parent else None)


def batch_span(name: str, causes: Sequence[Span | None], attributes: Mapping[str, Value] | None = None) -> Opened:
    """Mark work for several calls at once: it stands in the trace of the first, and is linked to all of them."""
    spans = [cause for cause in causes if cause is not None]
    return Opened(spans[0].child(name, Kind.INTERNAL, attributes, spans) if spans else None)


def root_span(name: str, attributes: Mapping[str, Value] | None = None) -> Opened:
    """Mark work that outlives what caused it, or has no end: a trace of its own, linked to the current one."""
    current = _SPAN.get()
    return Opened(current.root(name, attributes, [current] if current.headers() else []) if current else None)


def _trace_id(headers: Headers) -> str:
    return next((value[3:35] for key, value in headers if key == TRACEPARENT_KEY), "")


def _forget(variable: ContextVar[_Kept | None], token: Token[_Kept | None]) -> None:
    # A stream that its client left is closed by whoever collects it, in a context that never had the variable.
    with suppress(ValueError):
        variable.reset(token)
