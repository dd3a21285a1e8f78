"""Which web pages may use this service: ours, and those that a setting names. Knows no keys.

A browser sends what any page tells it to. Where no key is asked for, that a request comes from this machine says
nothing: so a page of another origin is refused, and so is a page that had a name of its own point at our address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.http.problems import Problem


@dataclass(frozen=True, slots=True)
class Origins:
    """``allowed``: origins (https://example.org) of other pages that may ask. ``hosts``: names that we are known by.

    Without ``hosts`` any name will do, which is right where keys are asked for.
    """

    allowed: frozenset[str]
    hosts: frozenset[str] | None

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise :class:`Problem` for a request that another page, or another name, brought here."""
        host = headers.get("host", "")
        name = _name(host)
        if self.hosts is not None and name not in self.hosts and not _is_address(name):
            message = (
                f"This service is not known as {name[:80]!r}; call it by its address, or name it in http_hosts, or "
                "have it ask for keys."
            )
            raise Problem(421, "INVALID_ARGUMENT", message, "host")
        origin = headers.get("origin")
        if origin is None or method in {"OPTIONS", "HEAD"} or origin in self.allowed:
            return
        if urlsplit(origin).netloc.lower() != host.lower():
            message = f"Pages of {origin[:80]!r} may not ask here; the setting http_origins names those that may."
            raise Problem(403, "PERMISSION_DENIED", message, "origin")


def _name(host: str) -> str:
    """Take the port off a Host header."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    """Say whether this is a number, or this machine's own name: no page elsewhere has those as its own."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True
