"""Lets others in before and after each step of a writer, a collector or a reader, and lets steps fail half way."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from encoder.errors import IndexUnavailable
from ingest.index.interface import IndexedChunk

PARTLY_APPLIED_SHARE = 0.3  # of batches of chunks
ANSWER_LOST_SHARE = 0.1  # of other writes
_WRITES = frozenset(("commit_record", "fence", "delete_chunks", "delete_record", "drop_tombstone", "flush"))


class Interrupted:
    """Passes calls on to an index, a journal or an encoder; others come in before and after each."""

    def __init__(self, inner: Any, generator: random.Random, passed: Counter[str], who: str) -> None:
        """Count in ``passed`` by what the calls are, and ``who`` makes them."""
        self._inner = inner
        self._random = generator
        self._passed = passed
        self._who = who

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*arguments: object, **named: object) -> object:
            await self._others(f"{self._who}: {name} begins")
            result = await found(*arguments, **named)
            await self._others(f"{self._who}: {name} ended")
            return result

        return call

    async def _others(self, point: str) -> None:
        self._passed[point] += 1
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        if self._random.random() < 0.05:
            await asyncio.sleep(0.005)


class Failing:
    """An index whose batches are applied in part now and then, and whose answers get lost."""

    def __init__(self, inner: Any, generator: random.Random, failed: Counter[str]) -> None:
        self._inner = inner
        self._random = generator
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in _WRITES:
            return found

        async def call(*arguments: object, **named: object) -> object:
            result = await found(*arguments, **named)
            if self._random.random() < ANSWER_LOST_SHARE:
                self._failed["answers lost"] += 1
                raise IndexUnavailable(f"the answer of {name} got lost")
            return result

        return call

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write all chunks, or some of them."""
        if self._random.random() < PARTLY_APPLIED_SHARE:
            await self._inner.upsert_chunks(chunks[: self._random.randrange(len(chunks))])
            self._failed["batches partly applied"] += 1
            raise IndexUnavailable("cut off within a batch")
        await self._inner.upsert_chunks(chunks)
