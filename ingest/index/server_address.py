"""Which Qdrant server, and the key that it asks for. Knows no client: those who pass it on need none."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class QdrantServer:
    """A server's address and key. As text it is the address alone, so that no message shows the key."""

    address: str
    api_key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.address
