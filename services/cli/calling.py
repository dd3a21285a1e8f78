"""How commands call a running service: one connection, what they show, and failures as the project's own exceptions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from encoder.credentials import showing
from encoder.errors import InvalidInput, MambaSearchError, Unavailable
from encoder.grpc_errors import error_of
from services.door.listening import is_loopback
from services.door.trusting import channel_credentials, read_file
from services.setting_groups import CallerSettings

MESSAGE_BYTES_MAX = 96 * 1024 * 1024  # a document of 64 MiB with its title, and some room
KEY_FILE_BYTES_MAX = 8192


@asynccontextmanager
async def open_channel(target: str, caller: CallerSettings) -> AsyncIterator[grpc.aio.Channel]:
    """Open a connection to a service of ours for one command; its calls show who the caller is.

    :class:`InvalidInput` for files that cannot be read, and where a key would travel to another machine for all to see.
    """
    options = [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ]
    credentials, key = channel_credentials(caller), credential_of(caller)
    if key and credentials is None and not caller.allow_insecure and not is_loopback(target.rpartition(":")[0]):
        raise InvalidInput(
            "api_key",
            f"api_key would go to {target} unencrypted, for others to read; ask the service over TLS (--tls-ca, or the "
            "setting use_tls), or set allow_insecure to send it all the same.",
        )
    if credentials is None:
        opened = grpc.aio.insecure_channel(target, options=options)
    else:
        opened = grpc.aio.secure_channel(target, credentials, options=options)
    async with opened as channel:
        yield showing(channel, key)


def credential_of(caller: CallerSettings) -> str | None:
    """Give the API key or token that settings name; None where they name none."""
    if caller.api_key is not None:
        key = caller.api_key.get_secret_value().strip()
    elif caller.api_key_file is not None:
        key = (read_file("api_key_file", caller.api_key_file) or b"").decode(errors="replace").strip()
    else:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key or len(key) > KEY_FILE_BYTES_MAX:
        raise InvalidInput("api_key", "api_key is not a key or token: one word of letters, digits and signs.")
    return key


def call_error(error: grpc.aio.AioRpcError, service: str, target: str, *, works_alone: bool = True) -> MambaSearchError:
    """Say what went wrong; where nothing answers at ``target``, say how to go on (``works_alone``: without, too)."""
    if error.code() is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
        if any(word in (error.details() or "").lower() for word in ("handshake", "ssl", "tls")):
            return Unavailable(
                f"The {service} at {target} cannot be spoken to over TLS: either it does not use it, or its "
                "certificate is not by tls_ca, has expired, or is for another name; name the service as the "
                "certificate does."
            )
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
