"""How long documents are in a stage of ingestion: told to whoever counts, and marked in traces. Knows neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from encoder.call_context import root_span, span

OnStage = Callable[[str, float], None]  # takes a stage's name, and seconds


@contextmanager
def staged(stage: str, on_stage: OnStage, *, count: int, alone: bool = False) -> Iterator[None]:
    """Do a stage's work on ``count`` documents or chunks inside.

    ``alone``: in a trace of its own. A stream may live for days, and be of millions of documents: no trace holds that.
    """
    started = time.perf_counter()
    mark = root_span if alone else span
    with mark(f"ingest {stage}", {"count": count}):
        try:
            yield
        finally:
            on_stage(stage, time.perf_counter() - started)


def untold(stage: str, seconds: float) -> None:
    """Tell nobody."""
