"""Tensors out of weight files, one by one, so that no model is in memory twice. Nothing is unpickled but tensors.

Two kinds of files: safetensors, and what ``torch.save`` wrote (``.bin``), read with ``weights_only``. In ours, matrices
may be stored in 8 bits: ``name`` int8 ``(rows, columns)`` and ``name.scale`` float32 ``(rows, 1)``, the value being
their product.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from encoder.errors import CheckpointError

SCALE = ".scale"
# What torch says of functions and classes that it does not call; of bytes that are no pickle it says "operand".
_FORBIDDEN = re.compile(
    r"GLOBAL \S+ was not an allowed|module \S+ is blocked|\bonly (create|build|execute)\b", re.IGNORECASE
)
_MATRICES = ("in_proj.weight", "out_proj.weight", "x_proj.weight", "dt_proj.weight", "embedding.weight")


def is_matrix(name: str) -> bool:
    """Tell projections and the embedding, which may be rounded, from what has to stay float32 (A_log is 2-d, too)."""
    return name.endswith(_MATRICES) or name == "projection.weight"


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors of a file, on the CPU, as stored (those in 8 bits as float32).

    They share the file's memory: copy what is kept. :class:`CheckpointError` for a file that is missing, cut short, or
    holds anything else.
    """
    yield from _read_pickle(path) if path.suffix == ".bin" else _read_safetensors(path)


def quantize_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Round ``(rows, columns)`` to int8 with one scale per row, ``(rows, 1)``, so that the largest value is 127."""
    scale = matrix.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return torch.round(matrix / scale).to(torch.int8), scale


def _read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = set(file.keys())
            for name in sorted(names):
                if name.endswith(SCALE) and name.removesuffix(SCALE) in names:
                    continue
                tensor = file.get_tensor(name)
                if tensor.dtype == torch.int8:
                    scale = file.get_tensor(name + SCALE) if name + SCALE in names else None
                    if tensor.dim() != 2:
                        raise CheckpointError(f"{path}: {name} holds int8 of {tensor.dim()} dimensions, not a matrix.")
                    if scale is None or scale.shape != (tensor.shape[0], 1):
                        raise CheckpointError(f"{path}: {name}{SCALE} is missing or not ({tensor.shape[0]}, 1).")
                    tensor = tensor.float() * scale
                yield name, tensor
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error}); give a whole model folder."
        ) from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is cut short: {error}.") from error


def _read_pickle(path: Path) -> Iterator[tuple[str, Tensor]]:
    found = _unpickle(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds {type(found).__name__} where tensors by their names were expected.")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name} is {type(tensor).__name__}, not a tensor with a name.")
        if tensor.is_meta or tensor.layout is not torch.strided:
            raise CheckpointError(f"{path}: {name} is sparse or has no values; give a whole, dense tensor.")
        yield name, tensor


def _unpickle(path: Path) -> object:
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"  # else the format before torch 1.6, which cannot be mapped
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a whole model folder.") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # what torch raises for damaged files is of many kinds
        if isinstance(error, pickle.UnpicklingError) and _FORBIDDEN.search(str(error)):
            raise CheckpointError(
                f"{path} holds more than tensors (code that would run when it is loaded); take the model as "
                "safetensors, from a source that you trust."
            ) from error
        raise CheckpointError(f"{path} is not a file of tensors, or is cut short.") from error
