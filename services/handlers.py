"""A method's handler with something around it: by its kind, and the same in all else. Knows no service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs alone
Behaviour = Callable[..., Any]
Wrapper = Callable[[Behaviour, str], Behaviour]


def wrapped(
    handler: Handler,
    method: str,
    *,
    unary: Wrapper | None = None,
    answers: Wrapper | None = None,
    stream: Wrapper | None = None,
) -> Handler:
    """Wrap a handler of one request and one answer, of one and a stream of ``answers``, or of two streams.

    Each wrapper gets what there is to wrap, and the method's name. A handler of a kind that none is given for would go
    unguarded: it is not served.
    """
    given: Any = handler  # a named tuple, which its stubs do not say
    for kind, wrapper in (("unary_unary", unary), ("unary_stream", answers), ("stream_stream", stream)):
        behaviour = getattr(given, kind)
        if behaviour and wrapper:
            made: Handler = given._replace(**{kind: wrapper(behaviour, method)})
            return made
    raise NotImplementedError(method)
