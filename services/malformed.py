"""Bytes that are no message of the type that a method takes: the caller's fault, told as such.

gRPC's Python server answers UNKNOWN with an exception's name where a message cannot be read, as if the service were at
fault. So reading never fails here: it gives a :class:`Malformed` in the message's place, which the method's guard
refuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from encoder.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands where a message would."""

    size: int  # bytes that came


def tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Give a deserializer that answers :class:`Malformed` where this one fails; none where bytes stay bytes."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:  # noqa: ANN401 - a message of the method's type
        try:
            return deserialize(data)
        except DecodeError:
            return Malformed(len(data))

    return read


def tolerating(handler: Any) -> Any:  # noqa: ANN401 - gRPC's handler of a method, a named tuple
    """Give a method's handler that reads messages so."""
    return handler._replace(request_deserializer=tolerant(handler.request_deserializer))


def checked(message: Any) -> Any:  # noqa: ANN401 - a message of the method's type
    """Give the message; :class:`InvalidInput` where there is none."""
    if isinstance(message, Malformed):
        raise InvalidInput(
            "message",
            f"The message of {message.size} bytes cannot be read; send what this service's .proto file describes, with "
            "texts in UTF-8.",
        )
    return message


async def checked_stream(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Give the messages, up to the first that cannot be read."""
    async for message in messages:
        yield checked(message)
