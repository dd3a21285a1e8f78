"""A handler of each kind is wrapped by the wrapper for its kind, and stays the same in all else."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from services.handlers import Behaviour, Handler, Wrapper, wrapped

METHOD = "/s/M"


def read(data: bytes) -> bytes:
    return data + b" read"


def write(message: bytes) -> bytes:
    return message + b" written"


def behave(*_: object) -> str:
    return "answered"


def wrapper(name: str) -> Wrapper:
    def wrap(inner: Behaviour, method: str) -> Behaviour:
        return lambda *given: f"{name} of {method}: {inner(*given)}"

    return wrap


def wrapped_by_all(handler: Handler) -> Handler:
    return wrapped(handler, METHOD, unary=wrapper("unary"), answers=wrapper("answers"), stream=wrapper("stream"))


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [
        (grpc.unary_unary_rpc_method_handler, "unary_unary", "unary"),
        (grpc.unary_stream_rpc_method_handler, "unary_stream", "answers"),
        (grpc.stream_stream_rpc_method_handler, "stream_stream", "stream"),
    ],
)
def test_the_wrapper_of_its_kind_is_around_a_handler(make: Callable[..., Handler], kind: str, name: str) -> None:
    found = wrapped_by_all(make(behave, read, write))
    assert getattr(found, kind)(None, None) == f"{name} of {METHOD}: answered"
    as_before = make(None, read, write)
    for field in ("request_streaming", "response_streaming", "request_deserializer", "response_serializer"):
        assert getattr(found, field) == getattr(as_before, field)


def test_a_handler_that_nothing_wraps_is_not_served() -> None:
    with pytest.raises(NotImplementedError, match=METHOD):
        wrapped_by_all(grpc.stream_unary_rpc_method_handler(behave))
    with pytest.raises(NotImplementedError, match=METHOD):
        wrapped(grpc.unary_unary_rpc_method_handler(behave), METHOD, stream=wrapper("stream"))
