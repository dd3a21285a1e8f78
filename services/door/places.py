"""Calls at once, shared fairly among tenants, so that a flood of one leaves the others places.

Dynamic thresholds (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998), which switches share their
buffers by: a tenant may hold at most a fixed multiple of the places that are free at the moment. One alone gets its
largest share, several that flood get equal ones, and some places always stay free for who comes next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from encoder.errors import Overloaded

RETRY_AFTER_S = 0.5


class Places:
    """Places for calls; ``share`` is the largest part of them that one tenant may hold while nobody else has any.

    ``refused`` is told "concurrency" of each refusal.
    """

    def __init__(
        self,
        count: int,
        *,
        share: float = 1.0,
        what: str = "calls",
        refused: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.count = count
        self._refused = refused
        self._what = what
        self._share = share
        self._held: Counter[str] = Counter()
        self._taken = 0

    @contextmanager
    def hold(self, tenant: str) -> Iterator[None]:
        """Hold a place for a call of a tenant; :class:`Overloaded` where there is none for it."""
        free = self.count - self._taken
        if free <= 0:
            self._refused("concurrency")
            raise Overloaded(
                f"{self.count} {self._what} are under way, which is the limit; try again in {RETRY_AFTER_S} s.",
                RETRY_AFTER_S,
            )
        # More than share / (1 - share) times what is free; a hair less, for the rounding of floats.
        if self._held[tenant] and self._held[tenant] * (1 - self._share) >= self._share * free - 1e-9:
            self._refused("concurrency")
            raise Overloaded(
                f"This tenant has {self._held[tenant]} {self._what} under way, which is its share of {self.count} now; "
                f"try again in {RETRY_AFTER_S} s.",
                RETRY_AFTER_S,
            )
        self._held[tenant] += 1
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._held[tenant] -= 1
            if not self._held[tenant]:
                del self._held[tenant]
