"""``mamba-search mine``: hard negatives and rankings for the sources of a training configuration."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from encoder.errors import MambaSearchError


def mine(
    config: Annotated[Path, typer.Argument(help="Training configuration, or the name of one that ships.")],
    set_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another value of a key, as in mining.negatives=8; may be repeated."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder whose nearest passages are candidates. Default: what training starts from."),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per source, and nothing else.")
    ] = False,
) -> None:
    """Find hard negatives and fused rankings for the sources with mined = true; train reads them from the cache."""
    from encoder.training.config import read_config

    chosen = read_config(config, set_values or ())
    try:
        from encoder.training.mining_run import mine_all
    except ModuleNotFoundError as error:
        raise MambaSearchError(f"The package {error.name} is missing; install mamba-search[train].") from error
    with _progress() as told:
        for name, mined in mine_all(chosen, model, told):
            if json_output:
                sys.stdout.write(json.dumps({"source": name} | asdict(mined)) + "\n")
            else:
                sys.stdout.write(
                    f"{name}: {mined.queries:,} queries, of each {mined.candidates:.1f} candidates, "
                    f"{mined.negatives:.1f} negatives and {mined.false_negatives:.1f} left out as too good; "
                    f"a positive is ranked first for {mined.positives_first:.0%}\n"
                )
            sys.stdout.flush()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, str, int, int], None]]:
    """Show on standard error how far the work on each source is, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}

        def told(source: str, what: str, done: int, total: int) -> None:
            if (source, what) not in tasks:
                tasks[source, what] = bars.add_task(f"{source}: {what}", total=total or None)
            bars.update(tasks[source, what], completed=done)

        yield told
