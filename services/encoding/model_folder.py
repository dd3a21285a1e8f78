"""Whether a model folder is whole, as far as that shows without torch: cheap enough to ask before anything starts."""

from __future__ import annotations

import zipfile
from pathlib import Path

import safetensors

from encoder.errors import CheckpointError
from encoder.fingerprint import model_fingerprint
from encoder.layouts.fitting import check_tokenizer
from encoder.layouts.opening import open_model
from encoder.model_config import ModelConfig
from encoder.tokenizer import Tokenizer

# How files begin that torch wrote before its version 1.6: a pickled number of its own.
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def check_model(source: Path) -> tuple[ModelConfig, str]:
    """Give a model's configuration and fingerprint; :class:`CheckpointError` names the file that is missing or broken.

    ``source`` is a folder of any layout, or a hub id (which is downloaded here, once). Whether the weights are those
    that the configuration asks for is found out when they are loaded.
    """
    found = open_model(source)
    check_tokenizer(found.config, Tokenizer.load(source))
    fingerprint = model_fingerprint(source)
    for weights in found.weights:
        for path in weights.files:
            _check_readable(path)
    return found.config, fingerprint


def _check_readable(path: Path) -> None:
    if path.suffix == ".bin":
        with path.open("rb") as file:
            legacy = file.read(len(_LEGACY_START)) == _LEGACY_START
        if not legacy and not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is not a file of tensors, or is cut short; take the model as safetensors.")
        return
    try:
        with safetensors.safe_open(path, framework="np"):
            pass
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is cut short: {error}.") from error
