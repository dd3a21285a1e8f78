"""Keeping two versions of one document in order, within one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ingest.index.interface import DocumentKey


class DocumentLocks:
    """Locks by document; several are taken at once or not at all, so that no two wait for each other."""

    def __init__(self) -> None:
        self._held: set[DocumentKey] = set()
        self._released = asyncio.Event()

    def try_take(self, keys: Iterable[DocumentKey]) -> bool:
        """Take documents if nobody holds any of them; say whether they were taken."""
        wanted = set(keys)
        free = self._held.isdisjoint(wanted)
        if free:
            self._held |= wanted
        return free

    async def take(self, keys: Iterable[DocumentKey]) -> None:
        """Take documents, waiting while anyone else holds one of them."""
        wanted = set(keys)
        while not self.try_take(wanted):
            self._released.clear()
            await self._released.wait()

    def release(self, keys: Iterable[DocumentKey]) -> None:
        """Let others have them. At once: also who is being cancelled lets go."""
        self._held -= set(keys)
        self._released.set()
