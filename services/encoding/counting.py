"""What a scheduler tells, turned into metrics: of a replica, or of the search service's own query encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.encoding.hooks import BatchRead, Hooks, Lane, Outcome, QueueState
from services.observing.encoder_metrics import EncoderMetrics

# An event loop that is busy with other things answers within milliseconds.
_LOOK_TIMEOUT_S = 0.5


def _nobody(_: bool) -> None:  # noqa: FBT001 - a hook's argument
    """Tell nobody."""


def counting_hooks(metrics: EncoderMetrics, note_wellness: Callable[[bool], None] = _nobody) -> Hooks:
    """Make hooks that count; ``note_wellness`` is told what the canary found."""

    def count_batch(batch: BatchRead) -> None:
        lane = batch.lane.value
        for waited_s in batch.waited_s:
            metrics.waited(lane, waited_s)
        metrics.encoded(lane, texts=batch.texts, tokens=batch.tokens, budget=batch.tokens_max, seconds=batch.forward_s)

    def count_request(lane: Lane, outcome: Outcome) -> None:
        metrics.ended(lane.value, outcome.value)

    def note_canary(is_well: bool, seconds: float) -> None:  # noqa: FBT001 - a hook's arguments
        note_wellness(is_well)
        metrics.canary_checked(seconds)

    return Hooks(batch_read=count_batch, request_ended=count_request, canary_checked=note_canary)


def look_from_outside(
    loop: asyncio.AbstractEventLoop, queue_state: Callable[[Lane], QueueState], lane: str
) -> tuple[int, int, float] | None:
    """Ask for a lane's requests, tokens and age in the queue's event loop; None where that is stuck."""

    async def ask() -> QueueState:
        return queue_state(Lane(lane))

    asked = asyncio.run_coroutine_threadsafe(ask(), loop)
    try:
        state = asked.result(_LOOK_TIMEOUT_S)
    except TimeoutError:
        asked.cancel()
        return None
    return state.requests, state.tokens, state.oldest_s
