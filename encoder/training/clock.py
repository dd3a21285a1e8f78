"""Time in a run: how much of it is over, how fast it is, when a checkpoint is due, and signals that end it early."""

from __future__ import annotations

import signal
import time
from typing import Any

from encoder.training.config import RunTable
from encoder.training.ranks import Ranks


class InterruptRequest:
    """While active, SIGINT and SIGTERM only raise a flag, so that a run can save its state before it ends."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread, as under Ray Train: its signals are the launcher's
                break
        return self

    def _note(self, _number: int, _frame: object) -> None:
        self.received = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Clock:
    """Time and speed of a run that has taken ``spent_s`` seconds before."""

    def __init__(self, ranks: Ranks, table: RunTable, spent_s: float) -> None:
        self._ranks = ranks
        self._table = table
        now = time.monotonic()
        self._started = now - spent_s
        self._saved = self._logged = now
        self._steps = self._tokens = self._places = 0
        self._shared_s = spent_s

    @property
    def spent_s(self) -> float:
        """Seconds of the run so far, interruptions left out."""
        return time.monotonic() - self._started

    def share(self, of_steps: float) -> float:
        """Say how much of the run is over, by steps or by time, whichever is further."""
        minutes = self._table.minutes_max
        if minutes is None:
            return of_steps
        # Of several processes all must see the same time, or their learning rates would differ.
        elapsed = self.spent_s if self._ranks.count == 1 else self._shared_s
        return max(of_steps, elapsed / (minutes * 60))

    def count(self, tokens: int, places: int) -> None:
        """Add a batch: tokens that were read, and places of its rows, padding included."""
        self._steps += 1
        self._tokens += tokens
        self._places += places

    def row(self) -> dict[str, float]:
        """Give what the log says of the time since the last row; the first process's clock becomes everyone's."""
        now = time.monotonic()
        self._shared_s = self._ranks.agree(now - self._started)
        row = {
            "spent_s": round(self._shared_s, 2),
            "step_s": round((now - self._logged) / max(1, self._steps), 4),
            "tokens_per_s": round(self._tokens * self._ranks.count / (now - self._logged)),
            "padding": round(1 - self._tokens / max(1, self._places), 4),
        }
        self._steps = self._tokens = self._places = 0
        self._logged = now
        return row

    def checkpoint_is_due(self) -> bool:
        """Tell whether it is time for a checkpoint."""
        due = time.monotonic() - self._saved > self._table.checkpoint_every_s
        if due:
            self._saved = time.monotonic()
        return due
