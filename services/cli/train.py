"""``mamba-search train``: a model taught by a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encoder.errors import InvalidInput, MambaSearchError

_EXIT_INTERRUPTED = 130


def train(
    config: Annotated[Path, typer.Argument(help="Training configuration, or the name of one that ships.")],
    set_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another value of a key, as in run.steps=100; may be repeated."
        ),
    ] = None,
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many steps, saved; the same command goes on.")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Train in so many processes of a Ray cluster, each with a GPU if any.")
    ] = None,
) -> int:
    """Train a model; what was interrupted goes on where it stopped. Several GPUs: torchrun --no-python, before this."""
    from encoder.training.config import read_config

    chosen = read_config(config, set_values or ())
    try:
        if ray_workers is not None:
            if stop_after is not None:
                raise InvalidInput("stop_after", "--stop-after and --ray-workers exclude each other; give one of them.")
            from encoder.training.ray_launch import launch

            launch(chosen, ray_workers)
            return 0
        from encoder.training.loop import train as run
    except ModuleNotFoundError as error:
        raise MambaSearchError(f"The package {error.name} is missing; install mamba-search[train].") from error
    complete = run(chosen, stop_after=stop_after)
    return 0 if complete or stop_after is not None else _EXIT_INTERRUPTED
