"""An encoder with what stands before it: the scheduler that fills its batches, the canary that sees whether it embeds.

A replica has both, and the search service where it embeds queries itself. Knows no Ray and no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encoder.interface import StreamingEncoder
from services.encoding.canary import Canary
from services.encoding.hooks import Hooks, Lane
from services.encoding.scheduler import Limits, Scheduler

_CANARY_TEXT = "canary"


def schedule(encoder: StreamingEncoder, limits: Limits, hooks: Hooks) -> tuple[Scheduler, Canary]:
    """Put a scheduler and a canary before an encoder."""
    scheduler = Scheduler(
        {Lane.QUERIES: encoder.embed_queries, Lane.PASSAGES: encoder.embed_passages},
        limits,
        side_by_side=encoder.reads_side_by_side,
        ahead=encoder.reads_ahead,
        hooks=hooks,
    )

    async def probe(deadline: float) -> NDArray[np.float32]:
        (row,) = await encoder.query_rows([_CANARY_TEXT])
        return await scheduler.probe(row, deadline)

    return scheduler, Canary(probe, scheduler.reading_s, hooks)
