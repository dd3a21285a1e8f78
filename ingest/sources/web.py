"""Files of the web (http, https), copied to a temporary one, each step of the way checked. Knows no format."""

from __future__ import annotations

import http.client
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from encoder.errors import InvalidInput
from ingest.files import FoundFile
from ingest.loading.kinds import CONTAINER_BYTES_MAX, CONTENT_TYPES, SUFFIXES, Kind, suffix_of
from ingest.sources.policy import WEB_SCHEMES, Address, SourcePolicy, check_source, resolve_host

REDIRECTS_MAX = 5
STEP_TIMEOUT_S = 30.0  # of connecting, and of each wait for more
TOTAL_TIMEOUT_S = 300.0  # of one file, however slowly it comes
ADDRESSES_MAX = 4  # of one host are tried
_BLOCK = 1 << 16
_AS_THEY_ARE = "/%:@!$&'()*+,;=~?-._"
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_HEADERS = {"User-Agent": "mamba-search", "Accept-Encoding": "identity", "Connection": "close"}


@contextmanager
def fetched(url: str, policy: SourcePolicy) -> Iterator[FoundFile]:
    """Fetch a file; it holds within the block. :class:`InvalidInput` names the step that failed or is not allowed.

    No proxy is asked, no cookie sent; redirects are followed within limits, each under the same policy.
    """
    with tempfile.TemporaryFile() as copy:
        place, content_type, size = _fetch(url, policy, copy)
        kind = _kind_of(url, place, content_type)
        parts = urlsplit(url)
        name = urlunsplit(parts._replace(fragment=""))
        title = PurePosixPath(unquote(parts.path)).stem or parts.netloc
        yield FoundFile(url, name, size, kind, lambda: _reopen(copy), title=title)


def _fetch(url: str, policy: SourcePolicy, copy: BinaryIO) -> tuple[str, str, int]:
    """Give where the file was in the end, its type, and its size."""
    place = url
    for _ in range(REDIRECTS_MAX + 1):
        check_source(place, policy)
        if urlsplit(place).scheme.lower() not in WEB_SCHEMES:
            raise _failed(url, f"is sent on to {place[:200]}, which is not of the web")
        try:
            with _answer(place, policy) as response:
                if response.status in _REDIRECTS and (target := response.headers.get("Location")):
                    place = urljoin(place, target)
                    continue
                if response.status != http.HTTPStatus.OK:
                    raise _failed(url, f"was answered with status {response.status}")
                return place, response.headers.get_content_type(), _copy(url, response, copy)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(url, f"cannot be fetched ({type(error).__name__}: {error})") from None
    raise _failed(url, f"is sent on more than {REDIRECTS_MAX} times")


@contextmanager
def _answer(url: str, policy: SourcePolicy) -> Iterator[http.client.HTTPResponse]:
    """Ask for a URL; within the block its answer can be read, for a limited time."""
    parts = urlsplit(url)
    addresses = resolve_host(url, policy)[:ADDRESSES_MAX]
    with _deadline() as guards:
        connection = _connection(url, addresses, guards)
        try:
            path = quote(parts.path or "/", safe=_AS_THEY_ARE)
            target = urlunsplit(("", "", path, quote(parts.query, safe=_AS_THEY_ARE), ""))
            connection.request("GET", target, headers=_HEADERS)
            yield connection.getresponse()
        finally:
            connection.close()


def _connection(url: str, addresses: list[Address], guards: list[socket.socket]) -> http.client.HTTPConnection:
    """Make a connection that goes to one of these addresses, whatever the name means by then."""

    def connect(*_: object) -> socket.socket:
        failure = OSError("no address")
        for address in addresses:
            connection = socket.socket(address.family, socket.SOCK_STREAM)
            connection.settimeout(STEP_TIMEOUT_S)
            guards.append(connection.dup())
            try:
                connection.connect(address.socket_address)
            except OSError as error:
                connection.close()
                failure = error
            else:
                return connection
        raise failure

    parts = urlsplit(url)
    host = parts.hostname or ""
    made: http.client.HTTPConnection
    if parts.scheme.lower() == "https":
        made = http.client.HTTPSConnection(host, parts.port, context=ssl.create_default_context())
    else:
        made = http.client.HTTPConnection(host, parts.port)
    made._create_connection = connect  # type: ignore[attr-defined]  # where the standard library connects
    return made


@contextmanager
def _deadline() -> Iterator[list[socket.socket]]:
    """End connections after a time: where a byte comes now and then, no single wait is too long.

    What is in the list are duplicates: encryption takes the first ones over.
    """
    guards: list[socket.socket] = []

    def end() -> None:
        for guard in guards:
            with suppress(OSError):
                guard.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(TOTAL_TIMEOUT_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield guards
    finally:
        timer.cancel()
        for guard in guards:
            guard.close()


def _copy(url: str, response: http.client.HTTPResponse, copy: BinaryIO) -> int:
    if encoding := response.headers.get("Content-Encoding", "").replace("identity", ""):
        raise _failed(url, f"comes compressed ({encoding[:40]}), which was not asked for")
    size = response.length or 0
    if size <= CONTAINER_BYTES_MAX:
        size = 0
        while (block := response.read(_BLOCK)) and size <= CONTAINER_BYTES_MAX:
            size += copy.write(block)
    if size > CONTAINER_BYTES_MAX:
        raise _failed(url, f"has more than {CONTAINER_BYTES_MAX} bytes, the limit of a file of the web; download it")
    if response.length:
        raise _failed(url, f"ended {response.length} bytes too early")
    copy.flush()
    return size


def _kind_of(url: str, place: str, content_type: str) -> Kind:
    """Tell what a file is by its name, where it is or where it was asked for; else by what the server says."""
    for name in (place, url):
        if kind := SUFFIXES.get(suffix_of(urlsplit(name).path)):
            return kind
    if kind := CONTENT_TYPES.get(content_type):
        return kind
    raise _failed(url, f"is of the type {content_type[:60]!r}, which is none to read")


def _reopen(copy: BinaryIO) -> BinaryIO:
    copy.seek(0)
    return copy


def _failed(url: str, why: str) -> InvalidInput:
    return InvalidInput("source", f"{url[:200]} {why}.")
