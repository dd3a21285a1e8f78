"""Clearing away: attempts that nobody finishes, and chunks that no search reads any more. Encodes nothing.

An attempt whose lease has run out is fenced first, so that its writer, should it still live, cannot commit it: then it
is either the committed one, or its chunks can go. What a record lists stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
    garbage: int


async def keep_leases(journal: Journal) -> None:
    """Keep this process's leases alive, until cancelled; what fails is tried again next time."""
    while True:
        try:
            await journal.renew()
        except MambaSearchError as error:
            logger.warning("leases are not renewed for now: %s", error)
        except Exception:
            logger.exception("leases are not renewed for a reason that nobody foresaw")
        await asyncio.sleep(HEARTBEAT_S)


async def keep_clear(journal: Journal, index: Callable[[], VectorIndex], collect_after_s: float) -> None:
    """Clear away, until cancelled; what fails is tried again next time.

    ``index`` gives the index, or raises why there is none.
    """
    while True:
        collected = Collected(0, 0)
        try:
            collected = await Collector(index(), journal, collect_after_s).collect_some()
        except MambaSearchError as error:
            logger.warning("nothing is cleared away for now: %s", error)
        except Exception:
            logger.exception("clearing away failed for a reason that nobody foresaw")
        await asyncio.sleep(0.0 if collected.attempts or collected.garbage else HEARTBEAT_S)


@asynccontextmanager
async def on_duty(journal: Journal, index: Callable[[], VectorIndex], collect_after_s: float) -> AsyncIterator[None]:
    """Keep leases alive and clear away, both at once, while the block runs."""
    duties = [
        asyncio.create_task(keep_leases(journal)),
        asyncio.create_task(keep_clear(journal, index, collect_after_s)),
    ]
    try:
        yield
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)


class Collector:
    """Clears one index by one journal; several may do so at once, also in other processes."""

    def __init__(self, index: VectorIndex, journal: Journal, collect_after_s: float) -> None:
        self._index = index
        self._journal = journal
        self._collect_after_s = collect_after_s

    async def collect(self, *, within_s: float = 0.0) -> Collected:
        """Settle what was abandoned and delete what is due, or will be within ``within_s``, until nothing is left."""
        attempts = garbage = 0
        while (found := await self.collect_some(within_s=within_s)).attempts or found.garbage:
            attempts, garbage = attempts + found.attempts, garbage + found.garbage
        return Collected(attempts, garbage)

    async def collect_some(self, *, within_s: float = 0.0) -> Collected:
        """Do a bounded part of it. What the journal forgets has reached the disk of the index before."""
        attempts = await self._journal.abandoned(AT_ONCE)
        closings = [await self._settle(attempt) for attempt in attempts]
        garbage = await self._journal.due(AT_ONCE, within_s=within_s)
        for each in garbage:
            await self._delete(each)
        if attempts or garbage:
            await self._index.flush()
        for close in closings:
            await close()
        await self._journal.collected(garbage)
        return Collected(len(attempts), len(garbage))

    async def _settle(self, attempt: Attempt) -> Callable[[], Awaitable[None]]:
        """Take an attempt's chunks away where they can go at once; give what closes it in the journal."""
        journal, after_s = self._journal, self._collect_after_s
        record = await self._index.fence(attempt.key, attempt.generation)
        if record and record.generation == attempt.generation:
            return lambda: journal.finish([attempt], after_s, grown=[attempt] if record.earlier else [])
        if record and record.generation > attempt.generation:
            return lambda: journal.discard(attempt, after_s)  # it may have been visible, and be read by a search
        await self._index.delete_chunks(attempt.key, generation=attempt.generation)
        if record:
            return lambda: journal.discard(attempt, after_s)  # again: what its writer sent last may still be on its way
        # A deletion that was not finished, or a first version: in both cases nothing of the document is to stay.
        return lambda: journal.finish_deletion(attempt, after_s)

    async def _delete(self, garbage: Garbage) -> None:
        """Delete the generations below that the record does not list; no later record can list them either.

        What grows is committed only in place of the version that it keeps chunks of, so a record lists nothing but its
        own generation and what the record before it listed. Its own is not below, or it is fenced here.
        """
        record = (await self._index.get_records([garbage.key])).get(garbage.key)
        if record and record.generation < garbage.below:
            record = await self._index.fence(garbage.key, garbage.below - 1)
        keep = record.generations if record else ()
        await self._index.delete_chunks(garbage.key, below=garbage.below, keep=keep)
        if garbage.tombstone:
            await self._index.drop_tombstone(garbage.key, garbage.tombstone)
