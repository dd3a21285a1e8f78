"""How far long work is: bars on a terminal, else a line now and then, on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Told = Callable[[str, str, int, int], None]  # of what, what is done, how many, of how many (0: nobody knows)

_EVERY_S = 10.0  # between two lines


@contextlib.contextmanager
def telling(*, bars: bool = True) -> Iterator[Told]:
    """Give what is to be called as the work goes on. Bars vanish when it is over; several processes have lines only."""
    console = Console(stderr=True)
    if not bars or not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[tuple[str, str], TaskID] = {}

        def told(source: str, what: str, done: int, total: int) -> None:
            if (source, what) not in tasks:
                tasks[source, what] = shown.add_task(f"{source}: {what}", total=total or None)
            shown.update(tasks[source, what], completed=done)

        yield told


def _lines() -> Told:
    last = time.monotonic()

    def told(source: str, what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            sys.stderr.write(f"{source}: {what}, {done:,}{f' of {total:,}' if total else ''}\n")

    return told
