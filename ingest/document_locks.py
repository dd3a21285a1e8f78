"""Keeping two versions of one document in order, within one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ingest.index.interface import DocumentKey


class DocumentLocks:
    """Locks by document; several are taken at once or not at all, so that no two wait for each other."""

    def __init__(self) -> None:
        self._held: set[DocumentKey] = set()
        self._changed = asyncio.Condition()

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
        async with self._changed:
            await self._changed.wait_for(lambda: self._held.isdisjoint(wanted))
            self._held |= wanted

    async def release(self, keys: Iterable[DocumentKey]) -> None:
        """Let others have them."""
        async with self._changed:
            self._held -= set(keys)
            self._changed.notify_all()
