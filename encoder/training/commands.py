"""What ``train`` and ``mine`` do, however they are called: ``mamba-search``, ``python -m encoder.training``, torchrun.

Imports what needs torch only once the configuration has been read, so that a mistake in it is told at once.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from encoder.errors import InvalidInput, MambaSearchError
from encoder.training.config import read_config

EXIT_INTERRUPTED = 130


def run_training(path: Path, changes: Sequence[str], stop_after: int | None, ray_workers: int | None) -> int:
    """Train as a configuration says, with ``changes`` to its values; give the exit code.

    Errors are those of :func:`encoder.training.config.read_config` and :func:`encoder.training.loop.train`.
    """
    config = read_config(path, changes)
    if ray_workers is not None:
        if stop_after is not None:
            raise InvalidInput("stop_after", "--stop-after and --ray-workers exclude each other; give one of them.")
        with _needing_packages():
            from encoder.training.ray_launch import launch
        launch(config, ray_workers)
        return 0
    with _needing_packages():
        from encoder.training.loop import train
    complete = train(config, stop_after=stop_after)
    return 0 if complete or stop_after is not None else EXIT_INTERRUPTED


def run_mining(path: Path, changes: Sequence[str], model: Path | None, *, as_json: bool) -> int:
    """Mine the sources of a configuration and print a line on each, or a JSON object; give the exit code.

    Errors are those of :func:`encoder.training.config.read_config` and :func:`encoder.training.mining_run.mine_all`.
    """
    config = read_config(path, changes)
    with _needing_packages():
        from encoder.training.mining_run import mine_all
    for name, mined in mine_all(config, model):
        if as_json:
            sys.stdout.write(json.dumps({"source": name} | asdict(mined)) + "\n")
        else:
            sys.stdout.write(
                f"{name}: {mined.queries:,} queries, of each {mined.candidates:.1f} candidates, "
                f"{mined.negatives:.1f} negatives and {mined.false_negatives:.1f} left out as too good; "
                f"a positive is ranked first for {mined.positives_first:.0%}\n"
            )
        sys.stdout.flush()
    return 0


@contextlib.contextmanager
def _needing_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        wanted = "ray[train]" if error.name == "ray" else "mamba-search[train]"
        raise MambaSearchError(f"The package {error.name} is missing; install {wanted}.") from error
