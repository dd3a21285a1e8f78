"""``mamba-search train``: a model taught by a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    """Train a model; what was interrupted goes on where it stopped. Several GPUs: torchrun -m encoder.training."""
    from encoder.training.commands import run_training

    return run_training(config, set_values or (), stop_after, ray_workers)
