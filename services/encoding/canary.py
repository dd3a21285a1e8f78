"""Whether a replica still embeds: a tiny text through its own queue, compared with what it gave at the start.

A busy replica is well: the probe goes before other queries, and waits for one batch at most. A replica whose forward
passes do not end, or give something else than before, is not, and says so until they do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from encoder.errors import EncoderUnavailable, MambaSearchError
from services.encoding.hooks import Hooks

PERIOD_S = 5.0
PROBE_TIMEOUT_S = 15.0
# Who asks while a probe runs waits this long at most; then the last answer counts.
WAIT_MAX_S = 2.0
# Of any batch: hundreds of times its usual time.
READING_MAX_S = 120.0
# Batches of other sizes round differently in bfloat16; a broken device gives something else altogether.
_COSINE_MIN = 0.98


class Canary:
    """Probes when asked, once in ``period_s`` at most; belongs to one event loop."""

    def __init__(
        self,
        probe: Callable[[float], Awaitable[NDArray[np.float32]]],
        reading_s: Callable[[], float],
        hooks: Hooks,
        *,
        period_s: float = PERIOD_S,
        probe_timeout_s: float = PROBE_TIMEOUT_S,
    ) -> None:
        """``probe`` gives an embedding ``(d,)`` by a time of the loop's clock; ``reading_s``, the age of a batch."""
        self._probe = probe
        self._reading_s = reading_s
        self._hooks = hooks
        self._period_s = period_s
        self._probe_timeout_s = probe_timeout_s
        self._expected: NDArray[np.float32] | None = None
        self._problem: str | None = None
        self._probed_at = -float("inf")
        self._running: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raise :class:`EncoderUnavailable` where the replica does not embed as it did at the start."""
        now = asyncio.get_running_loop().time()
        if self._running is None and now - self._probed_at >= self._period_s:
            self._running = asyncio.create_task(self._run())
        if self._running is not None:
            # The first answer is waited for: before it, nothing is known.
            await asyncio.wait({self._running}, timeout=None if self._expected is None else WAIT_MAX_S)
        problem = self._problem
        if self._reading_s() > READING_MAX_S:
            problem = f"a batch has been read for {self._reading_s():.0f} s"
        if problem is not None:
            raise EncoderUnavailable(f"The encoder does not embed ({problem}); it will be started again.")

    async def _run(self) -> None:
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        try:
            embedding = await self._probe(loop.time() + self._probe_timeout_s)
            self._problem = self._compared(embedding)
        except MambaSearchError as error:
            self._problem = f"of a tiny text: {error}"
        except Exception as error:  # noqa: BLE001 - whatever the model's libraries raise
            self._problem = f"of a tiny text: {type(error).__name__}"
        finally:
            self._probed_at, self._running = loop.time(), None
        self._hooks.canary_checked(self._problem is None, time.perf_counter() - started)

    def _compared(self, embedding: NDArray[np.float32]) -> str | None:
        if self._expected is None:
            self._expected = embedding
            return None
        cosine = float(embedding @ self._expected)
        if cosine >= _COSINE_MIN:
            return None
        return f"the cosine of a tiny text's embedding now and at the start is {cosine:.3f}"
