"""Models by their hub id (``organisation/name``): found in the local cache, or downloaded, the needed files only.

What is in the cache is used as it is, without asking whether the hub has something newer: an index stays with the
model that made it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from encoder.errors import CheckpointError, MambaSearchError
from encoder.layouts import mistral
from encoder.layouts.weight_files import UPSTREAM_NAMES, find_weights

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MODULE = re.compile(r"\d+_\w+")  # a folder of sentence-transformers
_FIRST_FILES = ["config.json", "modules.json", "params.json"]
_TIMEOUT_S = 30.0
# One kind of weights is enough: the first that a folder has.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "consolidated*.safetensors")


def local_folder(source: Path, *, weights: bool = True) -> Path:
    """Give the folder itself, or that of a hub id's files; without ``weights`` only configuration and tokenizer.

    :class:`CheckpointError` says what to do where they are not in the cache and cannot be downloaded.
    """
    if not is_hub_id(source):
        return source
    try:
        import huggingface_hub  # noqa: F401 - whether it is there
    except ModuleNotFoundError as error:
        raise MambaSearchError(
            f"There is no folder {source}; to read it as a hub id, install mamba-search[hub] (huggingface_hub), or "
            "give a folder."
        ) from error
    cached = _cached(str(source))
    if cached and (_has_weights(cached) if weights else (cached / "tokenizer.json").is_file()):
        return cached
    return _download(str(source), cached, weights=weights)


def is_hub_id(source: Path) -> bool:
    """Tell ``organisation/name`` from a folder: there is none of that name, nor one that could hold it."""
    if _ID.fullmatch(source.as_posix()) is None:
        return False
    try:
        return not source.exists() and not source.parent.exists()
    except OSError:  # a name too long, a folder that may not be looked into
        return False


def repository_of(folder: Path) -> str | None:
    """Give the hub id of a folder in the cache (``models--organisation--name/snapshots/revision``)."""
    snapshots = folder.absolute().parent
    if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
        return snapshots.parent.name.removeprefix("models--").replace("--", "/", 1)
    return None


def needed_files(files: Iterable[str], *, weights: bool = True) -> list[str]:
    """Choose of a repository's files those that a model is loaded from: its JSON files, and one kind of weights."""
    folders: dict[str, list[PurePosixPath]] = {}
    for name in files:
        path = PurePosixPath(name)
        if len(path.parts) == 1 or (len(path.parts) == 2 and _MODULE.fullmatch(path.parts[0])):
            folders.setdefault(str(path.parent), []).append(path)
    chosen: list[str] = []
    for paths in folders.values():
        chosen += [str(path) for path in paths if path.suffix == ".json"]
        kinds = [[str(path) for path in paths if path.match(pattern)] for pattern in _WEIGHTS]
        chosen += next((kind for kind in kinds if kind), []) if weights else []
    return sorted(chosen)


def _cached(repository: str) -> Path | None:
    import huggingface_hub

    try:
        # Newer versions miss what was left out of a download on purpose: ask for the first files of any layout only.
        found = huggingface_hub.snapshot_download(repository, allow_patterns=_FIRST_FILES, local_files_only=True)
        return Path(found)
    except huggingface_hub.errors.LocalEntryNotFoundError:
        return None


def _has_weights(folder: Path) -> bool:
    try:
        find_weights(folder, (*UPSTREAM_NAMES, *mistral.WEIGHT_NAMES), lambda key: key)
    except CheckpointError:
        return False
    return True


def _download(repository: str, cached: Path | None, *, weights: bool) -> Path:
    import huggingface_hub

    try:
        described = huggingface_hub.HfApi().model_info(repository, timeout=_TIMEOUT_S)
        files = [sibling.rfilename for sibling in described.siblings or ()]
        wanted = needed_files(files, weights=weights)
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:
        if cached:  # whether it is enough is found out when it is read
            return cached
        raise CheckpointError(
            f"{repository} is no folder, is not in the hub's cache on this machine, and cannot be downloaded "
            f"({_first_line(error)}); check the name, or run `hf download {repository} --local-dir FOLDER` where there "
            "is a connection, and give that folder."
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)
