"""How much a tenant, and a caller, may ask for: requests and tokens, by token buckets. Knows no protocol.

A bucket fills at a rate up to its burst. A request takes one from the bucket of requests before it is answered. What it
costs in tokens is known afterwards only, and taken then; below zero the next request waits until the debt is paid.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from encoder.errors import Overloaded
from services.door.principal import Limits, Principal

# Tenants and callers whose buckets are known; the least recently seen goes first, and is full when it comes again.
TRACKED_MAX = 10_000
_TOKENS_BURST_S = 10.0
_WAIT_MAX_S = 3600.0


class Bucket:
    """A number that grows at a rate up to a burst. Rate 0: without limit."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, now

    def wait_s(self, amount: float, now: float) -> float:
        """Say in how many seconds there will be so much (no more than the burst is waited for)."""
        if not self._rate:
            return 0.0
        self._fill(now)
        return max(0.0, min(amount, self._burst) - self._level) / self._rate

    def take(self, amount: float, now: float) -> None:
        """Take so much, below zero where there is less."""
        if self._rate:
            self._fill(now)
            self._level -= amount

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)


class Quotas:
    """The buckets of tenants and callers of one process."""

    def __init__(
        self,
        tenant_limits: Limits,
        *,
        tracked_max: int = TRACKED_MAX,
        now: Callable[[], float] = time.monotonic,
        refused: Callable[[str], object] = lambda _: None,
    ) -> None:
        """``refused`` is told of which quota, "requests" or "tokens", each refusal is."""
        self._tenant_limits, self._tracked_max, self._now = tenant_limits, tracked_max, now
        self._refused = refused
        self._buckets: OrderedDict[str, tuple[Limits, Bucket, Bucket]] = OrderedDict()

    def admit(self, principal: Principal, tenant: str, requests: int = 1) -> None:
        """Let requests in together; :class:`Overloaded` says when to come again, and takes nothing."""
        whose, what, wait_s = self._longest_wait(principal, tenant, requests)
        if wait_s > 0:
            self._refused(what)
            wait_s = math.ceil(wait_s * 1000) / 1000
            message = f"The quota of {what} of this {whose} is used up; try again in {wait_s:g} s."
            raise Overloaded(message, wait_s)
        self.take(principal, tenant, requests)

    def take(self, principal: Principal, tenant: str, requests: int = 1) -> None:
        """Count requests that have waited as long as they had to."""
        now = self._now()
        for _, bucket, _ in self._pairs(principal, tenant):
            bucket.take(requests, now)

    def wait_s(self, principal: Principal, tenant: str) -> float:
        """Say in how many seconds a request would be let in."""
        return self._longest_wait(principal, tenant, 1)[2]

    def charge(self, principal: Principal, tenant: str, tokens: int) -> None:
        """Take the tokens that a request has cost."""
        now = self._now()
        for _, _, bucket in self._pairs(principal, tenant):
            bucket.take(tokens, now)

    def _longest_wait(self, principal: Principal, tenant: str, requests: int) -> tuple[str, str, float]:
        now, longest = self._now(), ("", "", 0.0)
        for whose, of_requests, of_tokens in self._pairs(principal, tenant):
            for what, bucket, amount in (("requests", of_requests, requests), ("tokens", of_tokens, 0)):
                wait_s = min(bucket.wait_s(amount, now), _WAIT_MAX_S)
                if wait_s > longest[2]:
                    longest = (whose, what, wait_s)
        return longest

    def _pairs(self, principal: Principal, tenant: str) -> list[tuple[str, Bucket, Bucket]]:
        wanted = (("tenant", f"tenant:{tenant}", self._tenant_limits), ("caller", principal.name, principal.limits))
        return [
            (whose, *self._bucket(name, limits))
            for whose, name, limits in wanted
            if limits.requests_per_s or limits.tokens_per_s
        ]

    def _bucket(self, name: str, limits: Limits) -> tuple[Bucket, Bucket]:
        known = self._buckets.get(name)
        if known is not None and known[0] == limits:
            self._buckets.move_to_end(name)
            return known[1], known[2]
        now = self._now()
        requests = Bucket(limits.requests_per_s, limits.requests_burst or max(limits.requests_per_s, 1.0), now)
        tokens = Bucket(limits.tokens_per_s, limits.tokens_burst or _TOKENS_BURST_S * limits.tokens_per_s, now)
        self._buckets[name] = (limits, requests, tokens)
        self._buckets.move_to_end(name)
        while len(self._buckets) > self._tracked_max:
            self._buckets.popitem(last=False)
        return requests, tokens
