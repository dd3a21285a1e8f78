"""How many replicas there should be, by the tokens that wait in them. Knows no Ray; Serve's controller calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

TOKENS, BUSY = "tokens", "busy"
# Of a replica's time: with less to spare, queries wait for one another.
BUSY_MAX = 0.8


class Context(Protocol):
    """The part of ``ray.serve.config.AutoscalingContext`` that is used here."""

    @property
    def current_num_replicas(self) -> int:
        """Count the replicas that run."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[object, float]] | None:
        """Give what the replicas reported, by name and replica, each as its mean over the last while."""


class QueuedTokensPolicy:
    """As many replicas as have ``tokens_per_replica`` tokens waiting each, and are busy ``BUSY_MAX`` of the time.

    The second keeps those that are needed to have nothing waiting. Serve keeps the result within its bounds, and waits
    its delays.
    """

    def __init__(self, tokens_per_replica: float) -> None:
        self.tokens_per_replica = tokens_per_replica

    def __call__(self, context: Context) -> tuple[float, dict[str, object]]:
        """Give the number of replicas wanted, which Serve rounds up."""
        metrics = context.aggregated_metrics or {}
        tokens, busy = (list(metrics.get(name, {}).values()) for name in (TOKENS, BUSY))
        if not tokens or not busy:
            return context.current_num_replicas, {}
        # Replicas that have not reported yet are taken to be like the others.
        share = context.current_num_replicas / len(tokens)
        return max(sum(tokens) * share / self.tokens_per_replica, sum(busy) * share / BUSY_MAX), {}
