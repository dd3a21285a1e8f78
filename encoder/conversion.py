"""Models of other layouts, or of ours, written in ours: once, instead of translating them at every start."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError

from encoder.checkpoint import load_opened, save_model
from encoder.errors import CheckpointError, InvalidInput, StorageFull
from encoder.hub import local_folder
from encoder.layouts.fitting import check_tokenizer
from encoder.layouts.folder import ModelFolder
from encoder.layouts.opening import TOKENIZER_FILE, find_tokenizer, open_model, with_special_tokens
from encoder.model import EncoderModel
from encoder.model_config import ModelConfig, check_config
from encoder.tokenizer import Tokenizer

# Which tokenizer belongs to models whose folders have none.
_HINTS = {
    "mistral": ", as mistralai/Mamba-Codestral-7B-v0.1 has one in the tokenizers library's format",
    "state-spaces": ", as EleutherAI/gpt-neox-20b for the models that state-spaces published",
}


def convert(
    source: Path,
    destination: Path,
    *,
    tokenizer: Path | None = None,
    bits: int = 16,
    changes: Mapping[str, object] | None = None,
) -> EncoderModel:
    """Write the model of a folder (any layout) or hub id as a folder of ours, and give it.

    ``tokenizer`` is a ``tokenizer.json``, or a folder or hub id that has one; state-spaces' and Mistral's have none.
    ``changes`` replaces values of :class:`ModelConfig`: name, special tokens, pooling, prompts, limits.
    :class:`InvalidInput` for a destination that is not empty; :class:`CheckpointError` for a model that cannot be
    loaded, or does not fit its tokenizer; :class:`StorageFull` for a full disk. Nothing is left at the
    destination then.
    """
    _check_destination(destination)
    found = open_model(source)
    tokenizer_file = _find_tokenizer(tokenizer) if tokenizer else found.tokenizer_file
    if tokenizer_file is None:
        raise CheckpointError(
            f"{found.config_file.parent} has no {TOKENIZER_FILE}; name one with --tokenizer: a file, a folder or a hub "
            f"id{_HINTS.get(found.layout, '')}."
        )
    found = dataclasses.replace(
        found, config=_configure(found, tokenizer_file if tokenizer else None, dict(changes or {}))
    )
    check_tokenizer(found.config, Tokenizer.load_file(tokenizer_file))
    model = load_opened(found, dtype=None)
    write_model(destination, model, tokenizer_file, bits)
    return model


def write_model(destination: Path, model: EncoderModel, tokenizer_file: Path, bits: int) -> None:
    """Write a model and its tokenizer as a new folder; errors are those of :func:`convert` for its destination."""
    _check_destination(destination)
    try:
        _write(destination, model, tokenizer_file, bits)
    except (OSError, SafetensorError) as error:
        # safetensors tells the system's error in its message only.
        if getattr(error, "errno", None) == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(error):
            raise StorageFull(f"The disk of {destination} is full; free some space and try again.") from error
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(
            "destination", f"{destination} cannot be written ({reason}); name a folder that can be."
        ) from error


def _check_destination(destination: Path) -> None:
    try:
        taken = destination.exists() and (not destination.is_dir() or any(destination.iterdir()))
    except OSError as error:
        raise InvalidInput(
            "destination", f"{destination} cannot be read ({error.strerror}); name another folder."
        ) from error
    if taken:
        raise InvalidInput("destination", f"{destination} is there already, and not empty; name another folder.")


def _write(destination: Path, model: EncoderModel, tokenizer_file: Path, bits: int) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that moving it there is one step.
    with tempfile.TemporaryDirectory(prefix=".converting.", dir=destination.parent) as partial:
        save_model(Path(partial) / "model", model, bits=bits)
        shutil.copyfile(tokenizer_file, Path(partial) / "model" / TOKENIZER_FILE)
        if destination.exists():
            destination.rmdir()
        (Path(partial) / "model").rename(destination)


def _find_tokenizer(given: Path) -> Path:
    if given.is_file():
        return given
    folder = local_folder(given, weights=False)
    path = find_tokenizer(folder)
    if path is None:
        raise CheckpointError(f"{folder} has no {TOKENIZER_FILE}; name a file, a folder or a hub id that has one.")
    return path


def _configure(found: ModelFolder, tokenizer_file: Path | None, changes: dict[str, object]) -> ModelConfig:
    """Apply what another tokenizer wraps texts in, then the changes; an end token asks for pooling at it."""
    config = found.config
    if tokenizer_file:
        config = with_special_tokens(found.config_file, config.model_dump(), tokenizer_file)
    if changes.get("eos_token") is not None and config.pooling == "last":
        changes.setdefault("pooling", "eos")
    return check_config(found.config_file, config.model_dump() | changes)
