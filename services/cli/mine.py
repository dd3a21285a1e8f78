"""``mamba-search mine``: hard negatives and rankings for the sources of a training configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
) -> int:
    """Find hard negatives and fused rankings for the sources with mined = true; train reads them from the cache."""
    from encoder.training.commands import run_mining

    return run_mining(config, set_values or (), model, as_json=json_output)
