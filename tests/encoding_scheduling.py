"""A scheduler whose model takes virtual time: 1 s for 1000 tokens, and remembers its batches."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.interface import TokenRow
from services.encoding.hooks import BatchRead, Hooks, Lane, Outcome
from services.encoding.scheduler import Limits, Scheduler

TOKENS_PER_S = 1000
POISON, BREAK = -1, -2


class Reader:
    """Gives a row's first token and its length as its embedding."""

    def __init__(self, limits: Limits, *, side_by_side: bool = False, ahead: bool = False) -> None:
        self.batches: list[tuple[Lane, float, list[int]]] = []  # when begun, and rows' first tokens
        self.read: list[BatchRead] = []
        self.outcomes: list[tuple[Lane, Outcome]] = []
        self.running = dict.fromkeys(Lane, 0)
        self.free = asyncio.Event()
        self.free.set()
        hooks = Hooks(batch_read=self.read.append, request_ended=lambda *ended: self.outcomes.append(ended))
        embed = {Lane.QUERIES: self._queries, Lane.PASSAGES: self._passages}
        self.scheduler = Scheduler(embed, limits, side_by_side=side_by_side, ahead=ahead, hooks=hooks)
        # With `ahead`, two batches may be given, and are read one after the other.
        self._at_once = 2 if ahead else 1
        self._devices = {lane: asyncio.Lock() for lane in Lane} if side_by_side else dict.fromkeys(Lane, asyncio.Lock())
        self._side_by_side = side_by_side

    async def ask(self, lane: Lane, rows: Sequence[TokenRow], timeout_s: float = float("inf")) -> list[int]:
        """Embed rows as a replica does; gives their first tokens back."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        with self.scheduler.place(lane, sum(map(len, rows))):
            embedded = await self.scheduler.embed(lane, rows, deadline)
        assert [int(length) for _, length in embedded.embeddings] == [len(row) for row in rows]
        return [int(first) for first, _ in embedded.embeddings]

    async def piece(self, tokens: int, name: int, timeout_s: float = float("inf")) -> int:
        """Read a piece of a document."""

        async def read() -> int:
            await self._take(Lane.PASSAGES, [np.full(tokens, name, dtype=np.int32)])
            return name

        deadline = asyncio.get_running_loop().time() + timeout_s
        found, _, _ = await self.scheduler.read_piece(tokens, read, deadline)
        return found

    async def _queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        return await self._take(Lane.QUERIES, rows)

    async def _passages(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        return await self._take(Lane.PASSAGES, rows)

    async def _take(self, lane: Lane, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        self.running[lane] += 1
        assert self.running[lane] <= self._at_once, "too many batches of a lane at once"
        assert self._side_by_side or sum(self.running.values()) <= self._at_once, "too many batches at once"
        self.batches.append((lane, asyncio.get_running_loop().time(), [int(row[0]) for row in rows]))
        try:
            async with self._devices[lane]:
                await asyncio.sleep(sum(map(len, rows)) / TOKENS_PER_S)
                await self.free.wait()
        finally:
            self.running[lane] -= 1
        if any(row[0] == BREAK for row in rows):
            raise RuntimeError("broken")
        embeddings = np.array([[row[0], len(row)] for row in rows], dtype=np.float32)
        return np.full_like(embeddings, np.nan) if any(row[0] == POISON for row in rows) else embeddings
