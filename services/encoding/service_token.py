"""The service token: what callers show in the metadata, so that whoever reaches the port is not yet let in."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from encoder.client_calls import token_metadata
from encoder.errors import Unauthenticated


def check_token(expected: str | None, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Raise :class:`Unauthenticated` unless the metadata show the token; without one to expect, let everybody in."""
    for wanted_key, wanted in token_metadata(expected):
        shown = next((value for key, value in metadata if key == wanted_key), "")
        # In constant time: how long it takes must not tell how much of a guess was right.
        if not hmac.compare_digest(shown.encode() if isinstance(shown, str) else shown, wanted.encode()):
            raise Unauthenticated(
                "The encoder service knows the caller by no token, or by a wrong one; set MAMBASEARCH_ENCODER_TOKEN to "
                "the service's own."
            )
