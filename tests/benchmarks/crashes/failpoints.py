"""Where a process can be stopped to be killed: before and after each step of ingestion.

Whoever kills writes a point's name into the file ARMED of a folder; the process that reaches the point takes the file
away, writes HIT and stops itself (SIGSTOP), until it is killed or told to go on.
"""

from __future__ import annotations

import inspect
import os
import signal
from pathlib import Path
from typing import Any

ARMED, HIT = "armed", "hit"

INDEX_STEPS = (
    "upsert_chunks",
    "count_chunks",
    "get_records",
    "get_fences",
    "commit_record",
    "flush",
    "fence",
    "delete_chunks",
    "delete_record",
    "drop_tombstone",
)
JOURNAL_STEPS = (
    "under_way",
    "begin",
    "renew",
    "finish",
    "finish_deletion",
    "withdraw",
    "discard",
    "abandoned",
    "due",
    "collected",
)
POINTS = tuple(f"{step} {when}" for step in (*INDEX_STEPS, *JOURNAL_STEPS) for when in ("begins", "ended"))


class Failpoints:
    """Passes everything on to an index or a journal, by way of the points."""

    def __init__(self, inner: Any, folder: Path) -> None:
        self._inner = inner
        self._armed, self._hit = folder / ARMED, folder / HIT

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: object, **named: object) -> object:
            self._pass(f"{name} begins")
            result = await found(*arguments, **named)
            self._pass(f"{name} ended")
            return result

        return call

    def _pass(self, point: str) -> None:
        try:
            if self._armed.read_text() != point:
                return
            self._armed.unlink()
        except FileNotFoundError:
            return
        self._hit.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
