"""How many searches are under way at once: one more is refused, not queued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from encoder.errors import Overloaded

RETRY_AFTER_S = 0.5


class Places:
    """So many places, each held by a search while it is under way."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0

    @property
    def free(self) -> int:
        """How many nobody holds."""
        return self._count - self._taken

    @contextmanager
    def taken(self, count: int = 1) -> Iterator[None]:
        """Hold some; :class:`Overloaded` where they are not free."""
        if count > self.free:
            message = f"{self._count} searches are under way, which is the limit; try again in {RETRY_AFTER_S} s."
            raise Overloaded(message, RETRY_AFTER_S)
        self._taken += count
        try:
            yield
        finally:
            self._taken -= count
