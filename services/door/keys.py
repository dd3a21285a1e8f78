"""API keys and the file that they are in.

A key is ``ms_ID_SECRET``: the id finds the entry, the secret is 256 random bits. The file holds SHA-256 of the whole
key and never the key. A slow hash (scrypt, argon2) is for secrets that people choose; none of 2**256 random ones can be
guessed at any speed, and a fast hash costs each call a microsecond.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from encoder.errors import InvalidInput
from services.door.principal import NO_LIMITS, Limits, Principal, Role

KEY_PREFIX = "ms_"
KEYS_MAX = 10_000
_ID_BYTES, _SECRET_BYTES = 6, 32
_KEY = re.compile(r"ms_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_TENANT = r"^[A-Za-z0-9_-]{1,64}$"
# Compared with where an id is unknown, so that it takes as long as a wrong secret.
_NO_HASH = "0" * 64

_Rate = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class KeyLimits(BaseModel):
    """How much may be asked for with one key; 0: no limit of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_s: _Rate = 0.0
    requests_burst: _Rate = 0.0
    tokens_per_s: _Rate = 0.0
    tokens_burst: _Rate = 0.0


class KeyEntry(BaseModel):
    """One key as the file has it, or one client certificate by its name: then there is no hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    name: str = Field(max_length=200)
    hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    certificate: str | None = Field(None, min_length=1, max_length=300)
    roles: tuple[Role, ...] = Field(min_length=1)
    tenants: Literal["*"] | tuple[Annotated[str, Field(pattern=_TENANT)], ...] = Field(min_length=1)
    created_at: float
    expires_at: float | None = None
    limits: KeyLimits = KeyLimits()

    @pydantic.model_validator(mode="after")
    def _check_one_proof(self) -> KeyEntry:
        if (self.hash is None) == (self.certificate is None):
            raise ValueError("an entry has a hash or a certificate, and not both")
        return self

    def principal(self) -> Principal:
        """Make the caller that is known by this entry."""
        name = f"certificate:{self.certificate}" if self.certificate else f"key:{self.id}"
        return Principal(
            name=name,
            roles=frozenset(self.roles),
            tenants=None if self.tenants == "*" else frozenset(self.tenants),
            limits=Limits(**self.limits.model_dump()),
            expires_at=self.expires_at,
        )


class KeyFile(BaseModel):
    """The whole file, JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    keys: tuple[KeyEntry, ...] = Field(max_length=KEYS_MAX)

    @pydantic.model_validator(mode="after")
    def _check_names(self) -> KeyFile:
        for field in ("id", "certificate"):
            found = [value for entry in self.keys if (value := getattr(entry, field)) is not None]
            if len(found) != len(set(found)):
                raise ValueError(f"two entries have the same {field}")
        return self


@dataclass(frozen=True, slots=True)
class KeyWishes:
    """What a new entry is to be."""

    name: str
    roles: tuple[Role, ...]
    tenants: Literal["*"] | tuple[str, ...]
    expires_at: float | None = None
    limits: Limits = NO_LIMITS
    certificate: str | None = None


def make_entry(wishes: KeyWishes) -> tuple[KeyEntry, str | None]:
    """Make an entry and its key, which nobody can make again; None for a client certificate's.

    :class:`InvalidInput` names what is not acceptable.
    """
    key_id = secrets.token_hex(_ID_BYTES)
    key = None if wishes.certificate else f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    limits = wishes.limits
    try:
        entry = KeyEntry(
            id=key_id,
            name=wishes.name,
            hash=hash_of(key) if key else None,
            certificate=wishes.certificate,
            roles=wishes.roles,
            tenants=wishes.tenants,
            created_at=round(time.time(), 3),
            expires_at=wishes.expires_at,
            limits=KeyLimits(
                requests_per_s=limits.requests_per_s,
                requests_burst=limits.requests_burst,
                tokens_per_s=limits.tokens_per_s,
                tokens_burst=limits.tokens_burst,
            ),
        )
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "*") or "key"
        raise InvalidInput(field, f"{field} is not acceptable: {first['msg']}.") from None
    return entry, key


def hash_of(key: str) -> str:
    """Give what the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """The entries of one version of the file, to be found by what callers show."""

    def __init__(self, file: KeyFile) -> None:
        self._by_id = {entry.id: entry for entry in file.keys if entry.hash}
        self._by_certificate = {entry.certificate: entry for entry in file.keys if entry.certificate}

    def by_key(self, key: str) -> KeyEntry | None:
        """Find the entry of a key; None where there is none, or the secret is another."""
        form = _KEY.fullmatch(key)
        entry = self._by_id.get(form[1]) if form else None
        expected = entry.hash if entry and entry.hash else _NO_HASH
        same = hmac.compare_digest(hash_of(key), expected)
        return entry if same else None

    def by_certificate(self, names: frozenset[str]) -> KeyEntry | None:
        """Find the entry of a client certificate by its names; None where none or several are known."""
        found = [self._by_certificate[name] for name in names if name in self._by_certificate]
        return found[0] if len(found) == 1 else None

    def of(self, principal: Principal) -> KeyEntry | None:
        """Find the entry that a principal was known by; None where it is gone, or another by now."""
        kind, _, rest = principal.name.partition(":")
        entry = (self._by_id if kind == "key" else self._by_certificate).get(rest)
        return entry if entry is not None and entry.principal() == principal else None
