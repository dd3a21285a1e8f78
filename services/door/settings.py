"""What the door is told: certificates, keys, tokens, quotas, the audit log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

import pydantic
from pydantic import Field

from services.door.listening import is_loopback
from services.door.principal import Limits
from services.reading_settings import Settings

_JWKS = re.compile(r"https://\S+|/.*")


class InsecureSettings(Settings):
    """Whether what is not secure may be reached by others."""

    allow_insecure: bool = Field(
        default=False,
        description="Whether what is not secure may be done all the same: doors that listen beyond this machine "
        "without encryption or without keys, and keys that are sent there unencrypted.",
    )


class TlsSettings(InsecureSettings):
    """How the doors encrypt."""

    tls_cert: Path | None = Field(
        None,
        description="File (PEM) of the certificate that the doors show, with the chain to its authority. It is read "
        "again when it changes. Default: no encryption.",
    )
    tls_key: Path | None = Field(None, description="File (PEM) of that certificate's private key.")
    tls_client_ca: Path | None = Field(
        None,
        description="File (PEM) of the authorities whose certificates clients must show (mTLS). Default: clients need "
        "none.",
    )

    @pydantic.model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; give both or none")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        return self


class KeysFileSettings(Settings):
    """Where the API keys are."""

    keys_file: Path | None = Field(
        None,
        description="File of API keys, as `mamba-search keys create` makes it. It is read again when it changes. "
        "Default: no keys.",
    )


class CredentialSettings(KeysFileSettings):
    """By what callers are known."""

    jwt_jwks: str | None = Field(
        None,
        description="Public keys that tokens (JWT) are signed with: an absolute path or an https address of a JSON Web "
        "Key Set. Default: no tokens.",
    )
    jwt_jwks_ca: Path | None = Field(
        None, description="File (PEM) of the authorities that vouch for that address. Default: the system's."
    )
    jwt_issuer: str | None = Field(None, min_length=1, description="What tokens must name as their issuer (iss).")
    jwt_audience: str | None = Field(None, min_length=1, description="What tokens must name as their audience (aud).")
    jwt_tenants_claim: str = Field(
        "tenants",
        min_length=1,
        description="Claim of a token that lists the caller's tenants; * is all. A list, or names with blanks between.",
    )
    jwt_roles_claim: str = Field(
        "roles", min_length=1, description="Claim of a token that lists the caller's roles: search, ingest, admin."
    )
    jwt_leeway_s: float = Field(
        30.0, ge=0, le=600, description="How far the clocks of issuer and service may be apart."
    )

    @pydantic.field_validator("jwt_jwks")
    @classmethod
    def _check_jwks(cls, value: str | None) -> str | None:
        if value is not None and not _JWKS.fullmatch(value):
            raise ValueError("it must be an absolute path or an https address")
        return value

    @pydantic.model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if self.jwt_jwks is not None and (self.jwt_issuer is None or self.jwt_audience is None):
            raise ValueError("jwt_jwks needs jwt_issuer and jwt_audience: else any token of its keys would do")
        return self


class QuotaSettings(Settings):
    """How much each tenant may ask for."""

    tenant_requests_per_s: float = Field(
        0.0, ge=0, le=1e9, description="Requests a second that each tenant may send to a door. 0: no limit."
    )
    tenant_requests_burst: float = Field(
        0.0, ge=0, le=1e9, description="Requests that it may send at once. 0: as many as in a second."
    )
    tenant_tokens_per_s: float = Field(
        0.0,
        ge=0,
        le=1e12,
        description="Tokens a second that each tenant may have read: of queries, and of documents. 0: no limit.",
    )
    tenant_tokens_burst: float = Field(
        0.0, ge=0, le=1e12, description="Tokens that it may have read at once. 0: as many as in ten seconds."
    )
    tenant_share: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Largest part of the calls at once (search_concurrency_max, ingest_streams_max) that one tenant "
        "may have while nobody else has any; the rest stays free for others. 1: all.",
    )

    def tenant_limits(self) -> Limits:
        """Give the limits of each tenant."""
        return Limits(
            self.tenant_requests_per_s,
            self.tenant_requests_burst,
            self.tenant_tokens_per_s,
            self.tenant_tokens_burst,
        )


class AuditSettings(Settings):
    """Where the audit log goes."""

    audit_log: str = Field(
        "",
        pattern=r"^(-|/.*)?$",
        description="Where each call is noted as a line of JSON, without texts and keys: an absolute path of a folder, "
        "in which each process has a file of its name, or - for standard error. Default: nowhere.",
    )
    audit_log_bytes_max: int = Field(
        100 * 1024 * 1024, ge=4096, description="Bytes of such a file, after which a new one is begun."
    )
    audit_log_files: int = Field(5, ge=1, le=1000, description="Files that are kept of each process, the newest ones.")


class ServingSettings(Settings):
    """How a door behaves towards connections."""

    reflection: bool = Field(
        default=True, description="Whether a door tells what methods it has (gRPC reflection); to callers it knows."
    )
    call_timeout_s: float = Field(
        300.0,
        gt=0,
        le=3600,
        description="Longest time for one call that is no stream; a client's earlier deadline wins.",
    )
    connection_age_max_s: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="After how long a client has to connect anew, so that load spreads. 0: never.",
    )
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        le=600,
        description="How long a door that is told to stop still takes calls, unhealthy, so that others notice.",
    )
    drain_timeout_s: float = Field(
        5.0, ge=0, le=600, description="How long calls under way may go on then, before they are cut off."
    )


class DoorSettings(TlsSettings, CredentialSettings, QuotaSettings, AuditSettings, ServingSettings):
    """The doors of search and ingestion: what both are told."""

    def check_address(self, setting: str, host: str) -> None:
        """Raise ValueError where an address is beyond this machine, and the door is not secure."""
        if self.allow_insecure or is_loopback(host):
            return
        lacking = []
        if self.tls_cert is None:
            lacking.append("tls_cert and tls_key")
        if self.keys_file is None and self.jwt_jwks is None:
            lacking.append("keys_file or jwt_jwks")
        if lacking:
            raise ValueError(
                f"{setting} is {host}, which others reach: give {', and '.join(lacking)}, or set allow_insecure to do "
                "without"
            )
