"""Which row has a document's id: of several rows with one id, over all parts of a load, one is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ingest.seen import FirstPlaces

CACHE_KIB = 65_536


class SeenKeys:
    """The documents that have a row."""

    def __init__(self) -> None:
        self._places = FirstPlaces(cache_kib=CACHE_KIB)

    def add(self, hashes: Iterable[bytes]) -> None:
        """Note documents of which it does not matter where they came from: parts that are finished."""
        self._places.note((one, "a part that is finished") for one in hashes)

    def claim(self, claims: Sequence[tuple[bytes, str]]) -> list[str]:
        """For each hash and place say which other place has the document; empty where this one has it."""
        self._places.note(claims)
        owners = [self._places.of(one) for one, _ in claims]
        return ["" if owner == place else owner for owner, (_, place) in zip(owners, claims, strict=True)]

    def close(self) -> None:
        """Forget all of them."""
        self._places.close()
