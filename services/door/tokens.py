"""JSON Web Tokens (RFC 7519) of an identity provider: checked, and read as callers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from encoder.errors import Unauthenticated
from services.door.jwks import ALGORITHMS, KeySet
from services.door.principal import UNKNOWN, Principal, Role

SUBJECT_CHARS_MAX = 200
TENANTS_MAX = 1000
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BAD = "The token is not good"


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say, and where it says who may do what."""

    issuer: str
    audience: str
    tenants_claim: str
    roles_claim: str
    leeway_s: float


class TokenReader:
    """Reads tokens that keys of a set have signed."""

    def __init__(self, keys: KeySet, rules: TokenRules) -> None:
        self._keys, self._rules = keys, rules

    async def read(self, token: str) -> Principal:
        """Check a token and give whose it is; :class:`Unauthenticated` says what is wrong once its signature is right.

        :class:`encoder.errors.Unavailable` where the keys cannot be had.
        """
        claims = await self._claims(token)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= SUBJECT_CHARS_MAX:
            raise Unauthenticated(f"{_BAD}: its claim sub is not a name of at most {SUBJECT_CHARS_MAX} characters.")
        known = {role.value: role for role in Role}
        roles = frozenset(known[name] for name in self._names(claims, self._rules.roles_claim) if name in known)
        tenants = self._names(claims, self._rules.tenants_claim)
        if len(tenants) > TENANTS_MAX or not all(name == "*" or _TENANT.fullmatch(name) for name in tenants):
            raise Unauthenticated(f"{_BAD}: its claim {self._rules.tenants_claim} holds what is no tenant's name.")
        return Principal(
            name=f"token:{subject}",
            roles=roles,
            tenants=None if "*" in tenants else frozenset(tenants),
            expires_at=float(claims["exp"]) + self._rules.leeway_s,
        )

    async def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise Unauthenticated(UNKNOWN) from None
        algorithm, key_id = header.get("alg"), header.get("kid") or ""
        if algorithm not in ALGORITHMS:
            # "none" among them, and HS256, whose secret an attacker would take from the public key.
            raise Unauthenticated(f"{_BAD}: it must be signed with one of {', '.join(sorted(ALGORITHMS))}.")
        key = await self._keys.find(key_id if isinstance(key_id, str) else "")
        if key is None or key.algorithm_name != algorithm:
            raise Unauthenticated(f"{_BAD}: its signature is by no key of the issuer.")
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._rules.issuer,
                audience=self._rules.audience,
                leeway=self._rules.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_fault(error)) from None
        return claims

    @staticmethod
    def _names(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
        """Read names from a claim: a list of them, or one text with blanks between them, as OAuth's scope is."""
        value = claims.get(claim, ())
        if isinstance(value, str):
            return frozenset(value.split())
        return frozenset(name for name in value if isinstance(name, str)) if isinstance(value, list) else frozenset()


def _fault(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "The token has expired; get a new one."
        case jwt.ImmatureSignatureError():
            return f"{_BAD} yet: its time has not come."
        case jwt.MissingRequiredClaimError():
            return f"{_BAD}: it needs the claims exp, iss, aud and sub."
        case jwt.InvalidAudienceError():
            return f"{_BAD}: it is for another audience."
        case jwt.InvalidIssuerError():
            return f"{_BAD}: it is by another issuer."
        case _:
            return f"{_BAD}: its signature or form is wrong."
