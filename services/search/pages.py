"""Pages of hits that stay stable while documents come and go (AIP-158). Knows no index.

A page's token holds marks of all hits that were shown, and the next page is the best of the others. So a hit comes once
however ranks and scores move meanwhile, and an unchanged one that was not shown is never passed over. The service
keeps nothing, and any of its processes answers. The price is a token of 8 characters a hit, hence a limit on depth.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from encoder.errors import InvalidInput
from ingest.index.interface import ChunkKey
from services.search.diversity import POOL_MAX
from services.search.requests import SearchRequest, unpaged

# How deep pages go: as far as the index gives candidates, or documents among them, or looks at for diversity.
HITS_MAX = 1000
GROUPS_MAX = 200
DIVERSE_MAX = POOL_MAX

_DIGEST_BYTES = 8
_MARK_BYTES = 6  # of a thousand hits, two are taken for one in one of a hundred million searches
_TOKEN_CHARS_MAX = 4 * (_DIGEST_BYTES + _MARK_BYTES * HITS_MAX + 2) // 3

_Shown = TypeVar("_Shown", ChunkKey, str)


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of a search: what is bound to it, and what those before have shown."""

    digest: bytes
    marks: Sequence[bytes]  # in the order shown
    depth_max: int

    @property
    def shown(self) -> int:
        """Hits, or documents, of the pages before."""
        return len(self.marks)

    def split(self, keys: Iterable[_Shown]) -> tuple[list[_Shown], list[_Shown]]:
        """Part those that were shown from those that were not, each in their order."""
        if not self.marks:
            return [], list(keys)
        marks = set(self.marks)
        before: list[_Shown] = []
        others: list[_Shown] = []
        for key in keys:
            (before if _mark(key) in marks else others).append(key)
        return before, others

    def next_token(self, keys: Iterable[ChunkKey | str]) -> str:
        """Make the token of the page that follows the one with these."""
        data = b"".join([self.digest, *self.marks, *map(_mark, keys)])
        return base64.urlsafe_b64encode(data).decode()


def page_of(request: SearchRequest, fingerprint: str) -> Page:
    """Read which page is asked for; ``fingerprint`` is the index's.

    :class:`InvalidInput` names ``page_token`` where another search, or another model's index, gave it.
    """
    depth_max = HITS_MAX
    if request.group_chunks is not None:
        depth_max = GROUPS_MAX
    elif request.mmr_lambda is not None:
        depth_max = DIVERSE_MAX
    digest = _digest(request, fingerprint)
    if not request.page_token:
        return Page(digest, (), depth_max)
    try:
        data = base64.b64decode(request.page_token[: _TOKEN_CHARS_MAX + 4], altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        data = b""
    rest = data[_DIGEST_BYTES:]
    marks = [rest[start : start + _MARK_BYTES] for start in range(0, len(rest), _MARK_BYTES)]
    if data[:_DIGEST_BYTES] != digest or not marks or len(marks[-1]) != _MARK_BYTES or len(marks) >= depth_max:
        message = "page_token is not one that this search gave for the same request; begin with the first page."
        raise InvalidInput("page_token", message)
    return Page(digest, marks, depth_max)


def _mark(key: Hashable) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=_MARK_BYTES).digest()


def _digest(request: SearchRequest, fingerprint: str) -> bytes:
    bound = unpaged(request)
    embedding = b"" if bound.embedding is None else bound.embedding.tobytes()
    values = [getattr(bound, field.name) for field in fields(bound) if field.name != "embedding"]
    return hashlib.blake2b(repr((fingerprint, values)).encode() + embedding, digest_size=_DIGEST_BYTES).digest()
