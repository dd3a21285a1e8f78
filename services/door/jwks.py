"""The public keys that tokens are signed with: a JSON Web Key Set (RFC 7517), from a file or an https address."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import jwt

from encoder.errors import Unavailable

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
REFRESH_S = 600.0
# After one that failed, or for a key id that nobody knows: so rarely is it asked again, whoever calls.
PAUSE_S = 30.0
# How long keys stay good whose source is away.
KEPT_S = 86_400.0
TIMEOUT_S = 5.0
BYTES_MAX = 256 * 1024
KEYS_MAX = 100

logger = logging.getLogger(__name__)


class KeySet:
    """Keys by their ids, fetched again as they age, and once for an id that is unknown."""

    def __init__(self, fetch: Callable[[], bytes], now: Callable[[], float] = time.monotonic) -> None:
        """Make it; ``fetch`` runs in a thread, and raises OSError or ValueError where it cannot."""
        self._fetch, self._now = fetch, now
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._turn = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """Give the key of an id ("": the only one there is); None where there is none.

        :class:`Unavailable` where the keys could not be had for so long that none is good any more.
        """
        if self._age() > KEPT_S:
            await self._refresh()
            if self._age() > KEPT_S:
                raise Unavailable("The keys that tokens are checked with cannot be had now; try again later.")
        elif self._age() > REFRESH_S and (self._refreshing is None or self._refreshing.done()):
            # Nobody waits: the keys at hand are good for a while yet.
            self._refreshing = asyncio.create_task(self._refresh())
        found = self._at_hand(key_id)
        if found is None:
            await self._refresh()
            found = self._at_hand(key_id)
        return found

    def _at_hand(self, key_id: str) -> jwt.PyJWK | None:
        if key_id:
            return self._keys.get(key_id)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._now() - self._fetched_at

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was tried a moment ago; what cannot be had is logged."""
        async with self._turn:
            if self._tried_at is not None and self._now() - self._tried_at < PAUSE_S:
                return
            self._tried_at = self._now()
            try:
                self._keys = read_keys(await asyncio.to_thread(self._fetch))
            except (OSError, ValueError, http.client.HTTPException) as error:
                logger.warning("the keys of tokens could not be had (%s); those at hand stay", type(error).__name__)
            else:
                self._fetched_at = self._now()


def read_keys(data: bytes) -> Mapping[str, jwt.PyJWK]:
    """Read a key set; keys of other algorithms, or for encryption, are left out. ValueError where it is none."""
    try:
        listed = json.loads(data)["keys"]
        keys: dict[str, jwt.PyJWK] = {}
        for entry in listed[:KEYS_MAX]:
            try:
                key = jwt.PyJWK(entry)
            except jwt.PyJWTError:
                continue
            if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig"):
                keys[key.key_id or ""] = key
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not a JSON Web Key Set") from error
    return keys


def fetcher(source: str, ca: Path | None) -> Callable[[], bytes]:
    """Make what reads a key set from a file, or from an https address whose server ``ca`` (or the system) vouches for.

    Redirections are not followed, and no more than ``BYTES_MAX`` is read.
    """
    if not source.startswith("https://"):
        return lambda: _bounded(Path(source))
    parts = urlsplit(source)

    def fetch() -> bytes:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 443, timeout=TIMEOUT_S, context=context
        )
        try:
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            data = answer.read(BYTES_MAX + 1)
            if answer.status != http.client.OK or len(data) > BYTES_MAX:
                raise ValueError(f"HTTP status {answer.status}, {len(data)} bytes")
            return data
        finally:
            connection.close()

    return fetch


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(BYTES_MAX + 1)
    if len(data) > BYTES_MAX:
        raise ValueError(f"over {BYTES_MAX} bytes")
    return data
