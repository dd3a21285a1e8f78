"""Which files of a folder hold its weights: one, or several with an index that says which tensor is where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath

from encoder.errors import CheckpointError
from encoder.layouts.folder import Weights
from encoder.layouts.options import Options

# safetensors first: they hold nothing but tensors.
UPSTREAM_NAMES = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
_NAME_MAX = 200  # characters; a file system refuses even to look for much longer ones


def find_weights(folder: Path, names: tuple[str, ...], rename: Callable[[str], str | None]) -> Weights:
    """Find the first of the ``names``, whole or in shards; :class:`CheckpointError` where there is none."""
    for name in names:
        if (folder / name).is_file():
            return Weights((folder / name,), rename)
        index = folder / (name + INDEX)
        if index.is_file():
            return Weights(_shards(index), rename, index)
    raise CheckpointError(f"{folder} holds no weights ({', '.join(names)}, or shards with an index); complete it.")


def _shards(index: Path) -> tuple[Path, ...]:
    shards: dict[str, str] = {}
    weight_map = Options.read(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map is missing; it has to name the file of each tensor.")
    for key, shard in weight_map.items():
        if not isinstance(shard, str) or PurePath(shard).name != shard or not 0 < len(shard) <= _NAME_MAX:
            raise CheckpointError(f"{index}: weight_map puts {key} into {shard!r}, which is no file name.")
        shards.setdefault(shard, key)
    for shard, key in shards.items():
        if not (index.parent / shard).is_file():
            raise CheckpointError(
                f"{index}: weight_map puts {key} into {shard}, which is missing; complete the folder."
            )
    return tuple(index.parent / shard for shard in sorted(shards))
