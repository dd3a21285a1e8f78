"""How commands call a running service: one connection, and failures as the project's own exceptions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from encoder.errors import MambaSearchError, Unavailable
from encoder.grpc_errors import error_of

MESSAGE_BYTES_MAX = 96 * 1024 * 1024  # a document of 64 MiB with its title, and some room


@asynccontextmanager
async def open_channel(target: str) -> AsyncIterator[grpc.aio.Channel]:
    """Open a connection to a service of ours for one command."""
    options = [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield channel


def call_error(error: grpc.aio.AioRpcError, service: str, target: str, *, works_alone: bool = True) -> MambaSearchError:
    """Say what went wrong; where nothing answers at ``target``, say how to go on (``works_alone``: without, too)."""
    if error.code() is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
        ways = ["start one with `mamba-search up`", "name another with --target"]
        if works_alone:
            ways.append("give --data-dir to work in this process on a directory")
        listed = f"{', '.join(ways[:-1])}{',' if works_alone else ''} or {ways[-1]}"
        return Unavailable(f"No {service} answers at {target}; {listed}.")
    return error_of(
        error.code(),
        error.details() or "",
        tuple(error.trailing_metadata() or ()),
        unavailable=Unavailable,
        service=f"the {service} at {target}",
    )
