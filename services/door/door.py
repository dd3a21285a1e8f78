"""The door of a process: everything that a call passes before it is answered, for gRPC and HTTP alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from encoder.errors import InvalidInput
from services.door.audit import AuditLog
from services.door.authenticating import Authenticator, PeerCertificate
from services.door.key_ring import KeyRing
from services.door.places import Places
from services.door.principal import Limits, Principal
from services.door.quotas import Quotas
from services.door.settings import CredentialSettings, DoorSettings

if TYPE_CHECKING:
    from services.door.tokens import TokenReader

UNLIMITED = 1 << 31
# Who names no tenant has the default one's places and quotas.
_DEFAULT_TENANT = "default"


class Door:
    """Knows callers, counts what they ask for, and notes what they did.

    A caller of it does, in this order: :meth:`authenticate`; :func:`services.door.authorizing.authorize` for the method
    and the tenant; answers inside :meth:`admitted`; :meth:`Quotas.charge` with the tokens read; ``audit.note``.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        quotas: Quotas,
        audit: AuditLog,
        places: Places,
        own_places: Mapping[str, Places] | None = None,
        call_timeout_s: float = 300.0,
    ) -> None:
        """Make it; ``own_places`` has the methods whose calls have places of their own."""
        self.authenticator = authenticator
        self.quotas = quotas
        self.audit = audit
        self.call_timeout_s = call_timeout_s
        self._places, self._own_places = places, own_places or {}

    async def authenticate(self, authorization: str | None, certificate: PeerCertificate | None = None) -> Principal:
        """Say who calls; see :meth:`Authenticator.authenticate`."""
        return await self.authenticator.authenticate(authorization, certificate)

    @contextmanager
    def admitted(self, principal: Principal, method: str, tenant: str, requests: int = 1) -> Iterator[None]:
        """Let a call in for as long as the block lasts.

        :class:`encoder.errors.Overloaded` where the tenant or the caller has used its quota up, or has its share of the
        calls at once.
        """
        tenant = tenant or _DEFAULT_TENANT
        with self._own_places.get(method, self._places).hold(tenant):
            self.quotas.admit(principal, tenant, requests)
            yield

    async def turn(self, principal: Principal, tenant: str) -> None:
        """Wait until a message of a stream is within the quota, and count it: streams wait rather than fail."""
        tenant = tenant or _DEFAULT_TENANT
        while (wait_s := self.quotas.wait_s(principal, tenant)) > 0:  # noqa: ASYNC110 - time has no event
            await asyncio.sleep(wait_s)
        self.quotas.take(principal, tenant)

    def charge(self, principal: Principal, tenant: str, tokens: int) -> None:
        """Take the tokens that were read for a call."""
        if tokens:
            self.quotas.charge(principal, tenant or _DEFAULT_TENANT, tokens)

    def close(self) -> None:
        """Write what the audit log has yet to write."""
        self.audit.close()


def open_door() -> Door:
    """Make a door that lets everybody in, without limits: for what only tests and our own parts call."""
    return Door(Authenticator(), Quotas(Limits()), AuditLog("", ""), Places(UNLIMITED))


def service_door(token: str | None) -> Door:
    """Make the door of a part that only our own parts call, by a token; without one, everybody."""
    return Door(Authenticator(service_token=token), Quotas(Limits()), AuditLog("", ""), Places(UNLIMITED))


def make_door(
    settings: DoorSettings,
    process: str,
    calls_max: int,
    own_calls_max: Mapping[str, int] | None = None,
    refused: Callable[[str], object] = lambda _: None,
) -> Door:
    """Make the door that settings describe; call it inside the event loop.

    ``own_calls_max`` has the methods whose calls are counted on their own; ``refused`` is told by which quota each call
    is refused: "requests", "tokens" or "concurrency". :class:`InvalidInput` for a key file or key set that cannot be
    read.
    """

    def places(count: int) -> Places:
        return Places(count, share=settings.tenant_share, refused=refused)

    return Door(
        make_authenticator(settings),
        Quotas(settings.tenant_limits(), refused=refused),
        AuditLog(process, settings.audit_log, bytes_max=settings.audit_log_bytes_max, files=settings.audit_log_files),
        places(calls_max),
        {method: places(count) for method, count in (own_calls_max or {}).items()},
        settings.call_timeout_s,
    )


def make_authenticator(settings: CredentialSettings) -> Authenticator:
    """Make what knows callers by the keys and tokens that settings name."""
    return Authenticator(
        ring=KeyRing(settings.keys_file) if settings.keys_file else None, tokens=_make_token_reader(settings)
    )


def _make_token_reader(settings: CredentialSettings) -> TokenReader | None:
    source = settings.jwt_jwks
    if source is None:
        return None
    # They and cryptography take a fifth of a second to import: not in a process that reads no tokens.
    from services.door.jwks import KeySet, fetcher, read_keys
    from services.door.tokens import TokenReader, TokenRules

    assert settings.jwt_issuer is not None
    assert settings.jwt_audience is not None
    fetch = fetcher(source, settings.jwt_jwks_ca)
    if not source.startswith("https://") and not Path(source).is_file():
        raise InvalidInput("jwt_jwks", f"jwt_jwks {source} is no file; name one, or an https address.")
    if not source.startswith("https://"):
        try:
            read_keys(fetch())
        except (OSError, ValueError) as error:
            raise InvalidInput("jwt_jwks", f"jwt_jwks {source} cannot be read as a JSON Web Key Set.") from error
    rules = TokenRules(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        tenants_claim=settings.jwt_tenants_claim,
        roles_claim=settings.jwt_roles_claim,
        leeway_s=settings.jwt_leeway_s,
    )
    return TokenReader(KeySet(fetch), rules)
