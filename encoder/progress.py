"""How far long work is: bars on a terminal, else a line now and then, on standard error. Knows nothing of the work."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Report = Callable[[str, int, int], None]  # what is done ("documents"), how many, of how many (0: nobody knows)
ReportOf = Callable[[str], Report]  # by the name of what is worked on

_EVERY_S = 10.0  # between two lines


@contextlib.contextmanager
def reporting(*, bars: bool = True) -> Iterator[ReportOf]:
    """Give what makes callbacks of works, by their names. Bars vanish at the end; ``bars=False`` leaves lines only."""
    console = Console(stderr=True)
    if not bars or not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[tuple[str, str], TaskID] = {}

        def report(name: str, what: str, done: int, total: int) -> None:
            if (name, what) not in tasks:
                tasks[name, what] = shown.add_task(f"{name}: {what}", total=total or None)
            shown.update(tasks[name, what], completed=done)

        yield lambda name: partial(report, name)


def _lines() -> ReportOf:
    last = time.monotonic()

    def report(name: str, what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            sys.stderr.write(f"{name}: {what}, {done:,}{f' of {total:,}' if total else ''}\n")

    return lambda name: partial(report, name)
