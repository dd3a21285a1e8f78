"""Whether a model folder is whole, as far as that shows without torch: cheap enough to ask before anything starts."""

from __future__ import annotations

from pathlib import Path

import safetensors

from encoder.errors import CheckpointError
from encoder.fingerprint import model_fingerprint
from encoder.model_config import WEIGHTS_FILE, ModelConfig, load_model_config
from encoder.tokenizer import Tokenizer


def check_model(folder: Path) -> tuple[ModelConfig, str]:
    """Give a model's configuration and fingerprint; :class:`CheckpointError` names the file that is missing or broken.

    Whether the weights are those that the configuration asks for is found out when they are loaded.
    """
    config = load_model_config(folder)
    Tokenizer.load(folder)
    fingerprint = model_fingerprint(folder)
    path = folder / WEIGHTS_FILE
    try:
        with safetensors.safe_open(path, framework="np"):
            pass
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is cut short: {error}.") from error
    return config, fingerprint
