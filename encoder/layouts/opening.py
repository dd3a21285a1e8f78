"""Open a model folder of any layout: which one it is shows in its files."""

from __future__ import annotations

from pathlib import Path

from encoder.errors import CheckpointError
from encoder.hub import local_folder, repository_of
from encoder.layouts import hugging_face, mistral, sentence_transformers, state_spaces
from encoder.layouts.folder import ModelFolder, Weights
from encoder.layouts.options import Options
from encoder.layouts.special_tokens import read_special_tokens
from encoder.layouts.weight_files import UPSTREAM_NAMES, find_weights
from encoder.model_config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig, check_config

OWN = "mamba-search"
TOKENIZER_FILE = "tokenizer.json"
# Only configurations of ours have it; ModelConfig says what it may be.
_OWN_KEY = "architecture"


def open_model(source: Path) -> ModelFolder:
    """Read a model's configuration, and find its weights and tokenizer. ``source`` is a folder or a hub id.

    :class:`CheckpointError` names the file and the key where one is missing, or asks for a model that this project
    does not compute.
    """
    folder = local_folder(source)
    _check_folder(folder)
    if not (folder / sentence_transformers.MODULES_FILE).is_file():
        return _open_plain(folder, _name(folder))
    modules = sentence_transformers.find_modules(folder)
    inner = _open_plain(modules.transformer, _name(folder))
    changes = sentence_transformers.translate(folder, modules, inner.config.d_model)
    projections = (sentence_transformers.find_projection(modules.dense),) if modules.dense else ()
    return ModelFolder(
        layout="sentence-transformers",
        config_file=inner.config_file,
        config=check_config(inner.config_file, inner.config.model_dump() | changes),
        weights=(*inner.weights, *projections),
        tokenizer_file=find_tokenizer(folder),
    )


def find_tokenizer(folder: Path) -> Path | None:
    """Find a folder's ``tokenizer.json``; sentence-transformers may keep it beside the transformer."""
    places = [folder]
    if (folder / sentence_transformers.MODULES_FILE).is_file():
        places.insert(0, sentence_transformers.find_modules(folder).transformer)
    return next((place / TOKENIZER_FILE for place in places if (place / TOKENIZER_FILE).is_file()), None)


def _open_plain(folder: Path, name: str) -> ModelFolder:
    path = folder / CONFIG_FILE
    if not path.is_file() and (folder / mistral.PARAMS_FILE).is_file():
        path = folder / mistral.PARAMS_FILE
    options = Options.read(path)
    if _OWN_KEY in options:
        return open_own(folder)
    if state_spaces.is_state_spaces(options):
        weights = find_weights(folder, UPSTREAM_NAMES, state_spaces.rename)
        return _foreign("state-spaces", options, state_spaces.translate(options), weights, name)
    if mistral.is_mistral(options):
        weights = find_weights(folder, mistral.WEIGHT_NAMES, mistral.rename)
        return _foreign("mistral", options, mistral.translate(options), weights, name)
    if "model_type" in options:
        translated = hugging_face.translate(options)
        weights = find_weights(folder, UPSTREAM_NAMES, hugging_face.rename)
        return _foreign("hugging-face", options, translated, weights, name)
    raise CheckpointError(
        f"{path} has none of the keys that tell a layout: architecture (ours), d_model and n_layer (state-spaces), dim "
        "and n_layers (Mistral), model_type (Hugging Face); give a model folder of one of them."
    )


def open_own(folder: Path) -> ModelFolder:
    """Open a folder of this project's own layout; its weights are looked for when they are read."""
    path = folder / CONFIG_FILE
    return ModelFolder(
        layout=OWN,
        config_file=path,
        config=check_config(path, Options.read(path).values),
        weights=(Weights((folder / WEIGHTS_FILE,), lambda key: key),),
        tokenizer_file=find_tokenizer(folder),
    )


def _check_folder(folder: Path) -> None:
    """Refuse what cannot even be looked at: links in a circle, names too long, folders of others."""
    try:
        folder.stat()
    except FileNotFoundError:
        return  # told with the name of the file that is missed
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{folder} cannot be read ({reason}); give a whole model folder.") from error


def _foreign(layout: str, options: Options, values: dict[str, object], weights: Weights, name: str) -> ModelFolder:
    tokenizer_file = find_tokenizer(options.path.parent)
    return ModelFolder(
        layout=layout,
        config_file=options.path,
        config=with_special_tokens(options.path, values | {"name": name}, tokenizer_file),
        weights=(weights,),
        tokenizer_file=tokenizer_file,
    )


def with_special_tokens(path: Path, values: dict[str, object], tokenizer_file: Path | None) -> ModelConfig:
    """Complete a configuration by what the tokenizer wraps texts in; a text's last token stands for it."""
    wrapping: dict[str, object] = {"bos_token": None, "eos_token": None}
    if tokenizer_file:
        wrapping = dict(read_special_tokens(tokenizer_file)._asdict())
    pooling = "eos" if wrapping["eos_token"] is not None else "last"
    return check_config(path, values | wrapping | {"pooling": pooling})


def _name(folder: Path) -> str:
    return repository_of(folder) or folder.resolve().name
