"""Shows how far the stages of an ingestion are: bars on a terminal, else a line now and then, on standard error."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task

    from services.cli.tally import Stage, Tally

BARS_EVERY_S = 0.2
LINE_EVERY_S = 10.0


@asynccontextmanager
async def showing(tally: Tally, console: Console) -> AsyncIterator[None]:
    """Show how far it is while the block runs. Bars vanish at the end."""
    show = _bars if console.is_terminal else _lines
    shown = asyncio.create_task(show(tally, console))
    try:
        yield
    finally:
        shown.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await shown


async def _bars(tally: Tally, console: Console) -> None:
    with _make_bars(console) as bars:
        tasks = {stage.name: bars.add_task(stage.name, total=None, text="") for stage in tally.stages()}
        while True:
            for stage in tally.stages():
                troubles = _troubles(tally) if stage.name == "committed" else []
                text = ", ".join([said(stage), *troubles])
                bars.update(tasks[stage.name], completed=stage.done, total=stage.total, text=text)
            await asyncio.sleep(BARS_EVERY_S)


def _make_bars(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Documents or chunks a second, of late."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "", justify="right")

    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.fields[text]}"), Rate())
    return Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True)


async def _lines(tally: Tally, console: Console) -> None:
    before = {stage.name: stage.done for stage in tally.stages()}
    told = time.monotonic()
    while True:
        await asyncio.sleep(LINE_EVERY_S)
        now = time.monotonic()
        parts = []
        for stage in tally.stages():
            rate = (stage.done - before.get(stage.name, 0)) / (now - told)
            parts.append(f"{stage.name} {said(stage)} ({rate:,.0f}/s)")
            before[stage.name] = stage.done
        told = now
        console.print("; ".join([*parts, *_troubles(tally), *_left(tally)]), markup=False, soft_wrap=True)


def said(stage: Stage) -> str:
    """Say a stage's figures: ``12 of about 340 chunks``."""
    of = "" if stage.total is None else f" of {'' if stage.total == stage.done else 'about '}{stage.total:,}"
    return f"{stage.done:,}{of} {stage.unit}"


def _troubles(tally: Tally) -> list[str]:
    retries = tally.progress.retries if tally.progress else 0
    counts = ((tally.rejected, "refused"), (retries, "calls repeated"))
    return [f"{count:,} {what}" for count, what in counts if count]


def _left(tally: Tally) -> list[str]:
    share = tally.share_done()
    if not share:
        return []
    seconds = (time.monotonic() - tally.started) * (1 - share) / share
    return [f"about {seconds / 60:,.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"]
