"""Keeping two writers of one document apart, within one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class DocumentLocks:
    """Locks by document id; several are taken at once or not at all, so that no two wait for each other."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, document_ids: Iterable[str]) -> AsyncIterator[None]:
        """Hold documents while the block runs, waiting while anyone else holds one of them."""
        wanted = set(document_ids)
        async with self._changed:
            await self._changed.wait_for(lambda: self._held.isdisjoint(wanted))
            self._held |= wanted
        try:
            yield
        finally:
            async with self._changed:
                self._held -= wanted
                self._changed.notify_all()
