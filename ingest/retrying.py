"""Trying again, a bounded number of times, what fails for a passing reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from encoder.errors import IndexMoved, MambaSearchError, Overloaded, TimedOut, Unavailable

# Waits between attempts, in seconds: together half a minute, which a restart of the encoder or the index takes.
RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)

_Result = TypeVar("_Result")


async def with_retries(
    call: Callable[[], Awaitable[_Result]],
    delays_s: Sequence[float],
    on_retry: Callable[[MambaSearchError], None],
) -> _Result:
    """Call, and call again after each delay while the service is away, late or full; the last error is raised.

    Every call must be safe to repeat. A full service's own delay is waited for where it is longer.
    """
    for delay_s in delays_s:
        try:
            return await call()
        except IndexMoved:
            raise  # for good: whoever holds the index has to open it anew
        except (Unavailable, TimedOut, Overloaded) as error:
            on_retry(error)
            await asyncio.sleep(max(delay_s, error.retry_after_s) if isinstance(error, Overloaded) else delay_s)
    return await call()
