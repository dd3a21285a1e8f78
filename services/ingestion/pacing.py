"""Telling a stream's client to slow down: while it waits for acknowledgements because something is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from ingest.pipeline import Ingestor
from ingest.receipts import Receipt

QUIET_S = 1.0  # without any receipt, before a client is told
RETRY_DELAY_S = 5.0


@dataclass(frozen=True, slots=True)
class Pause:
    """The client had better send nothing for a while."""

    delay_s: float
    reason: str


async def with_pauses(
    receipts: AsyncGenerator[Receipt, None], ingestor: Ingestor
) -> AsyncGenerator[Receipt | Pause, None]:
    """Pass receipts on, and between them say when encoder, index or journal have been tried again."""
    retries = ingestor.progress.retries
    async with aclosing(receipts):
        waiting = asyncio.ensure_future(anext(receipts, None))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=QUIET_S)
                if done:
                    receipt = waiting.result()
                    if receipt is None:
                        return
                    yield receipt
                    waiting = asyncio.ensure_future(anext(receipts, None))
                elif ingestor.progress.retries > retries:
                    retries = ingestor.progress.retries
                    yield Pause(RETRY_DELAY_S, ingestor.last_trouble)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
