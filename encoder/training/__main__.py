"""``python -m encoder.training train CONFIG`` and ``… mine CONFIG``: the commands with nothing but training's packages.

torchrun takes a module by ``-m``, so this is what it starts; ``mamba-search`` has the same commands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from encoder.errors import MambaSearchError
from encoder.training.commands import EXIT_INTERRUPTED, run_mining, run_training


def main(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; an error is told on standard error in one line, without a traceback."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "train":
            return run_training(given.config, given.changes, given.stop_after, given.ray_workers)
        return run_mining(given.config, given.changes, given.model, as_json=given.as_json)
    except MambaSearchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m encoder.training")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a model; what was interrupted goes on where it stopped")
    mine = commands.add_parser("mine", help="find hard negatives for the sources with mined = true")
    for command in (train, mine):
        command.add_argument("config", type=Path, help="training configuration, or the name of one that ships")
        command.add_argument(
            "--set", action="append", default=[], dest="changes", metavar="KEY=VALUE", help="as in run.steps=100"
        )
    train.add_argument("--stop-after", type=_positive, metavar="STEPS", help="stop after so many steps, saved")
    train.add_argument("--ray-workers", type=_positive, metavar="N", help="train in so many processes of a Ray cluster")
    mine.add_argument("--model", type=Path, help="folder of the model that finds candidates, if not model.start")
    mine.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object per source")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
