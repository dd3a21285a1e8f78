"""What a client shows with each call. Knows no service."""

from __future__ import annotations

from typing import Any

import grpc


class _Showing:
    """A channel as stubs use one, whose calls all carry the same metadata.

    Interceptors of grpc.aio do the same and cost each call an object, a task and tens of microseconds; credentials of
    calls do it for TLS alone.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel, self._metadata = channel, metadata

    def __getattr__(self, kind: str) -> Any:  # noqa: ANN401 - unary_unary and its like
        make = getattr(self._channel, kind)

        def make_method(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - grpc's own
            method = make(*arguments, **options)

            def call(request: Any = None, *, metadata: Any = (), **given: Any) -> Any:  # noqa: ANN401 - grpc's own
                return method(request, metadata=(*self._metadata, *(metadata or ())), **given)

            return call

        return make_method


def showing(channel: grpc.aio.Channel, credential: str | None) -> grpc.aio.Channel:
    """Make a channel whose calls show an API key or a token; the channel itself where there is none."""
    if credential is None:
        return channel
    shown: Any = _Showing(channel, (("authorization", f"Bearer {credential}"),))
    made: grpc.aio.Channel = shown
    return made
