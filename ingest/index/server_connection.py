"""The connection to a Qdrant server: its address, its version, and its errors as ours. Knows no collection."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import grpc
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from encoder.errors import IndexUnavailable, InvalidInput, Overloaded, StorageFull, TimedOut
from ingest.index.server_address import QdrantServer

REST_PORT = 6333
TIMEOUT_S = 30
# The first that counts terms in a tenant's chunks alone, and matches the beginnings of texts; an older one would ignore
# the former.
SERVER_VERSION_MIN = (1, 19)


def connect(server: QdrantServer) -> AsyncQdrantClient:
    """Make a client; the address names the REST port (6333 where it names none), and gRPC is on the port after it."""
    address = server.address
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("qdrant_url", f"qdrant_url is {address!r}; give an address as http://127.0.0.1:6333.")
    port = parts.port or REST_PORT
    with warnings.catch_warnings():
        # That a key goes over http is the operator's choice, inside a network of his own: he wrote the address.
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        return AsyncQdrantClient(
            url=address,
            port=port,
            grpc_port=port + 1,
            prefer_grpc=True,
            timeout=TIMEOUT_S,
            check_compatibility=False,
            api_key=server.api_key,
        )


def check_version(version: str, service: str) -> None:
    """Raise :class:`IndexUnavailable` for a server that is too old."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if len(numbers) == len(SERVER_VERSION_MIN) and numbers < SERVER_VERSION_MIN:
        oldest = ".".join(map(str, SERVER_VERSION_MIN))
        raise IndexUnavailable(f"Qdrant on {service} is version {version}; {oldest} or newer is needed.")


@asynccontextmanager
async def translated(service: str) -> AsyncIterator[None]:
    """Raise what a call of the client raises as an error of ours that names the ``service``."""
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise Overloaded(f"Qdrant on {service} refuses more: {error}.", error.retry_after_s) from error
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimedOut(f"Qdrant on {service} gave no answer in {TIMEOUT_S} s; try again.") from error
        raise _failure(service, f"{error.code().name}: {details}") from error
    except UnexpectedResponse as error:
        raise _failure(service, f"{error.status_code} {error.content[:300]!r}") from error
    except (ApiException, QdrantException, OSError) as error:
        raise _failure(service, str(error) or type(error).__name__) from error


def _failure(service: str, reason: str) -> IndexUnavailable | StorageFull:
    if "No space left" in reason:
        return StorageFull(f"The disk of Qdrant on {service} is full ({reason}); free some space.")
    return IndexUnavailable(
        f"Qdrant on {service} failed or cannot be reached ({reason}); start it, or correct its address."
    )
