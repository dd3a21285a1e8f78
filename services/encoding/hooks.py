"""What a replica tells whoever counts: plain callables, so that the scheduler knows no library of metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Lane(Enum):
    """What waits: queries, which a person waits for, or passages, and the pieces of documents."""

    QUERIES = "queries"
    PASSAGES = "passages"


class Outcome(Enum):
    """How a request left the scheduler."""

    DONE = "done"
    REFUSED = "refused"  # the queue was full
    EXPIRED = "expired"  # its deadline passed
    CANCELLED = "cancelled"  # its caller went
    POISONED = "poisoned"  # one of its texts has no embedding
    FAILED = "failed"  # the encoder raised something unforeseen


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits in one lane, at this moment."""

    requests: int
    tokens: int
    oldest_s: float  # how long the request has waited that has waited longest; 0 where none does


@dataclass(frozen=True, slots=True)
class BatchRead:
    """One forward pass that has ended."""

    lane: Lane
    texts: int  # 1 for a piece of a document
    tokens: int
    tokens_max: int  # the budget it was filled from
    requests: int
    waited_s: tuple[float, ...]  # of each request in it that had none of its texts read before
    forward_s: float


def _ignore(*_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Called in the event loop, so none may wait; what waits is asked for (``EncoderReplica.queue_state``)."""

    batch_read: Callable[[BatchRead], None] = _ignore
    request_ended: Callable[[Lane, Outcome], None] = _ignore
    canary_checked: Callable[[bool, float], None] = _ignore  # whether it was well, and seconds
