"""An index between whose calls others come in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from encoder.errors import IndexUnavailable
from ingest.index.interface import IndexedChunk, VectorIndex


class Interrupted:
    """Passes calls on to an index; others come in before and after each, and a batch may fail half way."""

    def __init__(self, index: VectorIndex, generator: random.Random, *, fails: bool) -> None:
        self._index = index
        self._random = generator
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._index, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*arguments: object, **named: object) -> object:
            await self._others()
            result = await found(*arguments, **named)
            await self._others()
            return result

        return call

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        await self._others()
        if self._fails and self._random.random() < 0.3:
            await self._index.upsert_chunks(chunks[: self._random.randrange(len(chunks))])
            raise IndexUnavailable("cut off within a batch")
        await self._index.upsert_chunks(chunks)

    async def _others(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        if self._random.random() < 0.05:
            await asyncio.sleep(0.005)
