"""From what a caller shows to who it is: API keys, tokens, client certificates, and the token of our own parts."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from encoder.errors import Unauthenticated
from services.door.key_ring import KeyRing
from services.door.keys import KEY_PREFIX, KeyEntry
from services.door.principal import ANYONE, UNKNOWN, Principal, Role

if TYPE_CHECKING:
    from services.door.tokens import TokenReader

TOKEN_CHARS_MAX = 8192
SERVICE = Principal("service", frozenset({Role.ADMIN}), None)
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A client's certificate that TLS has verified: its subject alternative names, and its common name."""

    names: frozenset[str]


class Authenticator:
    """Knows callers. Without keys, tokens and a service token everybody is :data:`ANYONE`."""

    def __init__(
        self,
        *,
        ring: KeyRing | None = None,
        tokens: TokenReader | None = None,
        service_token: str | None = None,
    ) -> None:
        self._ring, self._tokens, self._service_token = ring, tokens, service_token

    @property
    def is_open(self) -> bool:
        """Whether callers need to show nothing."""
        return self._ring is None and self._tokens is None and self._service_token is None

    async def authenticate(self, authorization: str | None, certificate: PeerCertificate | None = None) -> Principal:
        """Say who shows this header ("Bearer …") and this certificate; the header counts where there are both.

        :class:`Unauthenticated` where nobody is known by them, in words that tell nothing of what is known;
        :class:`encoder.errors.Unavailable` where tokens cannot be checked now.
        """
        if self.is_open:
            return ANYONE
        if authorization is None:
            return self._by_certificate(certificate)
        shown = authorization[len(_SCHEME) :].strip()
        if not authorization[: len(_SCHEME)].lower() == _SCHEME or not shown or len(shown) > TOKEN_CHARS_MAX:
            raise Unauthenticated('authorization is not "Bearer " and a key or token; send one so.')
        if self._service_token is not None and hmac.compare_digest(shown.encode(), self._service_token.encode()):
            return SERVICE
        if self._ring is not None and shown.startswith(KEY_PREFIX):
            return _principal(self._ring.keys().by_key(shown))
        if self._tokens is not None:
            return await self._tokens.read(shown)
        raise Unauthenticated(UNKNOWN)

    def check_still_good(self, principal: Principal) -> None:
        """Raise :class:`Unauthenticated` where a caller that was known has expired since, or its key is revoked.

        For calls that last: each message of a stream is checked so.
        """
        _check_time(principal)
        if (
            self._ring is not None
            and principal.name.startswith(("key:", "certificate:"))
            and self._ring.keys().of(principal) is None
        ):
            raise Unauthenticated("The key is no longer good as it was; it was revoked, or changed.")

    def _by_certificate(self, certificate: PeerCertificate | None) -> Principal:
        if self._ring is not None and certificate is not None:
            entry = self._ring.keys().by_certificate(certificate.names)
            if entry is not None:
                return _principal(entry)
        raise Unauthenticated('There is no key or token; send "authorization: Bearer …" with one.')


def _principal(entry: KeyEntry | None) -> Principal:
    if entry is None:
        raise Unauthenticated(UNKNOWN)
    principal = entry.principal()
    _check_time(principal)
    return principal


def _check_time(principal: Principal) -> None:
    if principal.expires_at is not None and time.time() >= principal.expires_at:
        raise Unauthenticated("The key or token has expired; get a new one.")
