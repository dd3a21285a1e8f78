"""Who calls: what the door knows of a caller, and how those behind it learn it. Knows no protocol and no credential."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum

from encoder.errors import InvalidInput, PermissionDenied

# Said of every credential that is not known, whatever is wrong with it.
UNKNOWN = "The key or token is not good; it is unknown, or was revoked."


class Role(Enum):
    """What a caller may do. ``ADMIN`` may do everything."""

    SEARCH = "search"
    INGEST = "ingest"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a caller or a tenant may ask for in a second, and at once. 0: no limit."""

    requests_per_s: float = 0.0
    requests_burst: float = 0.0  # 0: what a second brings, at least 1
    tokens_per_s: float = 0.0
    tokens_burst: float = 0.0  # 0: what ten seconds bring


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that is known."""

    name: str  # for the audit log: key:ID, token:SUBJECT, certificate:NAME
    roles: frozenset[Role]
    tenants: frozenset[str] | None  # None: all
    limits: Limits = NO_LIMITS
    expires_at: float | None = None  # seconds since 1970

    def has_one_of(self, roles: frozenset[Role]) -> bool:
        """Say whether one of these roles, or ``ADMIN``, is the caller's."""
        return Role.ADMIN in self.roles or not self.roles.isdisjoint(roles)

    def sees(self, tenant: str) -> bool:
        """Say whether a tenant's things are the caller's to see; those of no one tenant ("") are of who sees all."""
        return self.tenants is None or tenant in self.tenants

    def tenant_for(self, tenant: str) -> str:
        """Give the tenant that a request means by a name; an empty one means the caller's only tenant.

        Empty stays empty for who sees all tenants. :class:`PermissionDenied` for any other than the caller's, in the
        same words whether it exists or not; :class:`InvalidInput` where none is named and the caller has several.
        """
        if self.tenants is None:
            return tenant
        if tenant in self.tenants:
            return tenant
        if tenant:
            raise PermissionDenied(f"tenant {tenant[:80]!r} is not one of this caller's; name one that is.")
        if len(self.tenants) == 1:
            return next(iter(self.tenants))
        raise InvalidInput("tenant", "tenant is empty, and this caller has several; name one of them.")


# Where no keys and no tokens are set up: the machine's user, who may do everything.
ANYONE = Principal("anyone", frozenset(Role), None)

_CALLER: ContextVar[Principal] = ContextVar("caller")


def caller() -> Principal:
    """Give who made the call that is being answered. LookupError where nobody was let in: a mistake in the code."""
    return _CALLER.get()


def set_caller(principal: Principal) -> None:
    """Say, in the task that answers a call, who made it."""
    _CALLER.set(principal)


@contextmanager
def called_by(principal: Principal) -> Iterator[None]:
    """Say who calls, for as long as the block lasts."""
    before = _CALLER.set(principal)
    try:
        yield
    finally:
        _CALLER.reset(before)
