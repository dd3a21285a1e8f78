"""What the HTTP side of the search service is told."""

from __future__ import annotations

from pydantic import Field

from services.setting_groups import IngestTargetSettings, TrustSettings

_ORIGIN = r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?"


class HttpSettings(IngestTargetSettings, TrustSettings):
    """HTTP beside gRPC: where, for whom, and within which limits."""

    http_host: str = Field(
        "127.0.0.1", min_length=1, description="Address that the search service listens on for HTTP, its page included."
    )
    http_port: int = Field(8080, ge=0, le=65535, description="Port of the search service for HTTP. 0: none.")
    http_hosts: str = Field(
        "",
        pattern=r"^([A-Za-z0-9.-]+(,[A-Za-z0-9.-]+)*)?$",
        description="Names, with commas between them, that browsers may know the service by where it asks for no keys. "
        "Default: localhost and addresses alone, so that no other page can pass for it.",
    )
    http_origins: str = Field(
        "",
        pattern=rf"^(({_ORIGIN})(,({_ORIGIN}))*)?$",
        description="Origins of other web pages that may ask the service, such as https://app.example.org, with commas "
        "between them (CORS). Default: none.",
    )
    http_body_bytes_max: int = Field(
        4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Longest body of a request, in bytes."
    )
    http_body_timeout_s: float = Field(
        20.0, gt=0, le=600, description="Longest time for a body to arrive; a slower client is cut off."
    )
    http_requests_max: int = Field(
        512, ge=1, le=10_000, description="Requests over HTTP at once, streams included; one more is refused with 429."
    )
    http_streams_max: int = Field(64, ge=1, le=10_000, description="Jobs that are followed over HTTP at once.")

    def origins(self) -> frozenset[str]:
        """Give the origins of other pages that may ask."""
        return frozenset(filter(None, self.http_origins.split(",")))

    def hosts(self) -> frozenset[str]:
        """Give the names that browsers may know the service by."""
        return frozenset(filter(None, self.http_hosts.lower().split(",")))
