"""Which sources may be read on behalf of somebody: a process that reads for others reads nothing unless told."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from encoder.errors import InvalidInput

WEB_SCHEMES = frozenset(("http", "https"))
BUCKET_SCHEMES = frozenset(("s3", "gs"))
SCHEMES = frozenset(("file", *WEB_SCHEMES, *BUCKET_SCHEMES))
URL_CHARS_MAX = 4096
_PORTS = {"http": 80, "https": 443}
# Prefixes under which IPv6 carries an address of IPv4 in its last 32 bits.
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """What may be read. The default allows nothing."""

    schemes: frozenset[str] = frozenset()  # of file, http, https, s3, gs
    hosts: frozenset[str] = frozenset()  # of the web, and buckets: names; *.example.org is all below it, * is any
    folders: tuple[Path, ...] = ()  # with all that is in them
    internal_addresses: bool = False  # whether a host may be of this machine or of a private network


# Who asks on a command line may read what this process may read.
EVERYTHING = SourcePolicy(SCHEMES, frozenset("*"), (Path("/"),), internal_addresses=True)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host answers: what a socket connects to."""

    family: int
    socket_address: tuple[str, int] | tuple[str, int, int, int]


def check_source(url: str, policy: SourcePolicy) -> None:
    """Raise :class:`InvalidInput` unless the policy allows a URL, or a path of this machine.

    A host's name is resolved and all of its addresses are checked. Whoever then connects must connect to an address of
    :func:`resolve_host`, as :mod:`ingest.sources.web` does: between two look-ups a name may come to mean another.
    """
    scheme, parts = split_url(url)
    if scheme not in policy.schemes:
        allowed = ", ".join(sorted(policy.schemes)) or "nothing"
        raise _refused(url, f"is read by {scheme!r}, but allowed here is {allowed}")
    if parts is None or scheme == "file":
        _check_folder(url, local_path(url), policy)
        return
    if parts.username is not None or parts.password is not None:
        raise _refused(url, "holds a user's name or password; leave it out")
    host = (parts.hostname or "").rstrip(".").lower()
    if not any(_is_of(host, pattern) for pattern in policy.hosts):
        raise _refused(url, f"is of {host!r}, which is not among the hosts and buckets allowed here")
    if scheme in WEB_SCHEMES:
        resolve_host(url, policy)
    elif parts.query and policy != EVERYTHING:
        raise _refused(url, "says with ? how the bucket is reached; leave it out")  # it may name any server


def split_url(url: str) -> tuple[str, SplitResult | None]:
    """Give scheme and parts of a URL; of a path without any scheme, ``file`` and None."""
    if len(url) > URL_CHARS_MAX:
        raise _refused(url, f"has {len(url)} characters; the limit is {URL_CHARS_MAX}")
    if "://" not in url:
        return "file", None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise _refused(url, f"is no URL ({error})") from None
    return parts.scheme.lower(), parts


def local_path(url: str) -> Path:
    """Give the path of a ``file:`` URL; a path stays what it is."""
    _, parts = split_url(url)
    if parts is None:
        return Path(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise _refused(url, "is no URL of a file here; write file:///PATH")
    return Path(unquote(parts.path))


def resolve_host(url: str, policy: SourcePolicy) -> list[Address]:
    """Look up where a URL of the web leads; :class:`InvalidInput` if nowhere, or to one address that is not allowed."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or _PORTS[parts.scheme.lower()], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _refused(url, f"is of {host!r}, of which no address is known ({error})") from None
    addresses: list[Address] = []
    for family, _, _, _, socket_address in found:
        if family not in (socket.AF_INET, socket.AF_INET6):
            continue
        where = str(socket_address[0])
        if not policy.internal_addresses and not _is_public(where):
            raise _refused(url, f"leads to {where}, an address of this machine or of a private network")
        addresses.append(Address(family, (where, *socket_address[1:])))
    if not addresses:
        raise _refused(url, f"is of {host!r}, of which no address is known")
    return addresses


def _is_public(where: str) -> bool:
    """Say whether an address, and one that it stands for, is for all the world."""
    address = ipaddress.ip_address(where.partition("%")[0])
    inner: ipaddress.IPv4Address | None = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.teredo is not None:
            return False
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in (inner or address,))


def _check_folder(url: str, path: Path, policy: SourcePolicy) -> None:
    if Path("/") in policy.folders:
        return
    try:
        real = path.resolve()
        inside = any(real.is_relative_to(folder.resolve()) for folder in policy.folders)
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a NUL
        raise _refused(url, f"leads nowhere ({error})") from None
    if not inside:
        raise _refused(url, "leads out of the folders allowed here")


def _is_of(host: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    pattern = pattern.rstrip(".").lower()
    return host.endswith(pattern[1:]) and host != pattern[2:] if pattern.startswith("*.") else host == pattern


def _refused(url: str, why: str) -> InvalidInput:
    shown = url if len(url) <= 200 else url[:200] + "…"
    return InvalidInput("source", f"{shown} {why}.")
