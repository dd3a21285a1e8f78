"""Clearing away: attempts that nobody finishes, and chunks that no search reads any more. Encodes nothing.

An attempt whose lease has run out is fenced first, so that its writer, should it still live, cannot commit it: then it
is either the committed one, or its chunks can go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from encoder.errors import MambaSearchError
from ingest.index.interface import VectorIndex
from ingest.journal import HEARTBEAT_S, Attempt, Garbage, Journal

logger = logging.getLogger(__name__)

AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Collected:
    """What one round cleared away."""

    attempts: int
    chunks: int


async def keep_clear(journal: Journal, index: Callable[[], VectorIndex], collect_after_s: float) -> None:
    """Keep this process's leases alive and clear away, until cancelled; what fails is tried again next time.

    ``index`` gives the index, or raises why there is none.
    """
    while True:
        try:
            await journal.renew()
            await Collector(index(), journal, collect_after_s).collect()
        except MambaSearchError as error:
            logger.warning("nothing is cleared away for now: %s", error)
        await asyncio.sleep(HEARTBEAT_S)


class Collector:
    """Clears one index by one journal; several may do so at once, also in other processes."""

    def __init__(self, index: VectorIndex, journal: Journal, collect_after_s: float) -> None:
        self._index = index
        self._journal = journal
        self._collect_after_s = collect_after_s

    async def collect(self, *, within_s: float = 0.0) -> Collected:
        """Settle what was abandoned and delete what is due, or will be within ``within_s``, until nothing is left."""
        attempts = chunks = 0
        while found := await self._journal.abandoned(AT_ONCE):
            for attempt in found:
                chunks += await self._settle(attempt)
            attempts += len(found)
        while garbage := await self._journal.due(AT_ONCE, within_s=within_s):
            for each in garbage:
                chunks += await self._delete(each)
        return Collected(attempts, chunks)

    async def _settle(self, attempt: Attempt) -> int:
        record = await self._index.fence(attempt.key, attempt.generation)
        if record and record.generation == attempt.generation:
            await self._journal.finish([attempt], self._collect_after_s)
            return 0
        count = await self._index.delete_chunks(attempt.key, generation=attempt.generation)
        if record:
            await self._journal.withdraw(attempt)
        else:
            # A deletion that was not finished, or a first version: in both cases nothing of the document is to stay.
            await self._journal.finish_deletion(attempt, self._collect_after_s)
        return count

    async def _delete(self, garbage: Garbage) -> int:
        count = await self._index.delete_chunks(garbage.key, below=garbage.below)
        if garbage.tombstone:
            await self._index.drop_tombstone(garbage.key, garbage.tombstone)
        await self._journal.collected(garbage)
        return count
