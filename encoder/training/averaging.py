"""The mean of several models' weights: what lies between two stages of a training is often better than either.

Models that were trained on from one another, or from the same start, lie in one valley of the loss, and so does their
mean (Wortsman et al. 2022, arXiv 2109.01903, equation 1): fine-tuning's gain without all of what it forgets.

    python -m encoder.training.averaging runs/distilled runs/default --weights 0.3 0.7 --out runs/mean
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from encoder.checkpoint import load_opened
from encoder.conversion import write_model
from encoder.errors import CheckpointError, InvalidInput, MambaSearchError
from encoder.layouts.opening import open_model
from encoder.model import EncoderModel
from encoder.tokenizer import TOKENIZER_FILE


def average(folders: Sequence[Path], weights: Sequence[float], out: Path) -> EncoderModel:
    """Write the weighted mean of models as a folder of ours, with the first one's configuration, and give it.

    :class:`InvalidInput` for weights that are not one a model, negative or not 1 in sum; :class:`CheckpointError` for
    models that differ in anything but their weights, or have no tokenizer. ``out`` is a new folder, and errors about it
    are those of :func:`encoder.conversion.convert`.
    """
    if len(weights) != len(folders) or min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise InvalidInput(
            "weights", f"weights are {list(weights)} for {len(folders)} models; give one each, 0 or more, 1 in sum."
        )
    found = [open_model(folder) for folder in folders]
    for folder, other in zip(folders, found, strict=True):
        if other.config.model_copy(update={"name": found[0].config.name}) != found[0].config:
            raise CheckpointError(f"{folder} is another architecture than {folders[0]}; their mean is no model.")
    tokenizer_file = found[0].tokenizer_file
    if tokenizer_file is None:
        raise CheckpointError(f"{folders[0]} has no {TOKENIZER_FILE}; put the model's own there.")
    mean = load_opened(found[0])
    with torch.no_grad():
        for parameter in mean.parameters():
            parameter.mul_(weights[0])
        for opened, weight in zip(found[1:], weights[1:], strict=True):
            for parameter, other_parameter in zip(mean.parameters(), load_opened(opened).parameters(), strict=True):
                parameter.add_(other_parameter, alpha=weight)
    write_model(out, mean, tokenizer_file, bits=32)
    return mean


def main(arguments: Sequence[str] | None = None) -> int:
    """Average as the arguments say, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="model folders")
    parser.add_argument("--weights", type=float, nargs="+", required=True, help="of each, 1 in sum")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args(arguments)
    try:
        average(given.folders, given.weights, given.out)
    except MambaSearchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
