"""Pages of long lists, as AIP-158 has them: a size within limits, and a token that goes with one request only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from encoder.errors import InvalidInput

PAGE_SIZE = 50
PAGE_SIZE_MAX = 1000
TOKEN_CHARS_MAX = 4096
_DIGEST_CHARS = 16


def page_size_of(asked: int) -> int:
    """Give the size of a page: the default for 0, and no more than the most; :class:`InvalidInput` below 0."""
    if asked < 0:
        raise InvalidInput("page_size", f"page_size is {asked}; give 1 to {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE}.")
    return min(asked or PAGE_SIZE, PAGE_SIZE_MAX)


def make_token(asked: bytes, after: Sequence[str | float]) -> str:
    """Make the token of the page after an entry, for a request that asks the same (``asked``: all but the page)."""
    return base64.urlsafe_b64encode(json.dumps([_digest(asked), *after]).encode()).decode()


def read_token(asked: bytes, token: str, length: int) -> list[str | float] | None:
    """Give the entry that a token stands for, of so many values; None without a token.

    :class:`InvalidInput` for a token that is not of such a request.
    """
    if not token:
        return None
    try:
        digest, *after = json.loads(base64.b64decode(token[:TOKEN_CHARS_MAX], altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error):
        digest, after = "", []
    if digest != _digest(asked) or len(after) != length:
        message = "page_token is not one that this list gave for the same request; begin with the first page."
        raise InvalidInput("page_token", message)
    return list(after)


def _digest(asked: bytes) -> str:
    return hashlib.sha256(asked).hexdigest()[:_DIGEST_CHARS]
