"""Model folders on disk to models and back. Ours: ``config.json``, ``model.safetensors``, ``tokenizer.json``.

Folders of mamba_ssm, transformers, sentence-transformers and Mistral are read, too (:mod:`encoder.layouts`); only ours
are written, matrices in 8, 16 or 32 bits, all else float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from encoder.errors import CheckpointError
from encoder.layouts.folder import ModelFolder, Weights
from encoder.layouts.opening import open_model
from encoder.model import EncoderModel
from encoder.model_config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from encoder.weights import SCALE, is_matrix, quantize_rows, read_tensors

_FORMAT = {"format": "mamba-search/1"}
_PROJECTION = "projection."
_EMPTY: Callable[..., object] = torch.empty
_IN_PLACE_OPERATORS = frozenset({"__iadd__", "__imul__", "__isub__", "__itruediv__"})


def load_model(
    source: Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = torch.float32
) -> EncoderModel:
    """Build the model that a folder (or hub id) describes and load its weights, ready to read (not to train).

    Matrices of projections and the embedding become ``dtype`` (None: as stored), all else float32, tensor by tensor and
    straight onto the device. :class:`CheckpointError` names the file and the key where one is missing, left over, of
    the wrong shape or not finite.
    """
    return load_opened(open_model(source), device, dtype)


def load_opened(
    found: ModelFolder, device: str | torch.device = "cpu", dtype: torch.dtype | None = torch.float32
) -> EncoderModel:
    """Load the weights of a folder that is open already; see :func:`load_model`."""
    model = build_empty(found.config)
    expected = model.state_dict()
    loaded: dict[str, Tensor] = {}
    for weights in found.weights:
        for path in weights.files:
            for key, tensor in read_tensors(path):
                name = weights.rename(key)
                if name is None:
                    continue
                _check(path, key, tensor, expected.get(name), found.config_file)
                if name in loaded:
                    raise CheckpointError(f"{path}: {key} stands in another file, too; the folder is damaged.")
                kept = dtype if is_matrix(name) else torch.float32
                loaded[name] = tensor.to(device=device, dtype=kept or tensor.dtype, copy=True)
    for name in sorted(expected.keys() - loaded.keys()):
        raise CheckpointError(
            f"{_holder(found, name).named_by}: {name} is missing; {found.config_file.name} asks for it."
        )
    model.load_state_dict(loaded, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


def build_empty(config: ModelConfig) -> EncoderModel:
    """Build a model whose matrices have shapes but no memory, to be loaded or counted."""
    with _WithoutMatrices():
        return EncoderModel(config)


def save_model(folder: Path, model: EncoderModel, *, bits: int = 32) -> None:
    """Write configuration and weights; ``bits`` 8, 16 (bfloat16) or 32 are those of the matrices."""
    if bits not in (8, 16, 32):
        raise ValueError(f"bits is {bits}; 8, 16 and 32 can be written")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(model.config.model_dump(), indent=2) + "\n", encoding="utf-8")
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        value = tensor.detach().cpu()
        if bits == 8 and is_matrix(name):
            tensors[name], tensors[name + SCALE] = quantize_rows(value.float())
        else:
            dtype = torch.bfloat16 if bits == 16 and is_matrix(name) else torch.float32
            tensors[name] = value.to(dtype).contiguous()
    # Write beside and rename, so that a crash leaves the old file or the new one.
    partial = folder / (WEIGHTS_FILE + ".partial")
    safetensors.torch.save_file(tensors, partial, metadata=_FORMAT)
    partial.replace(folder / WEIGHTS_FILE)


class _WithoutMatrices(TorchFunctionMode):
    """Makes new tensors of two or more dimensions on ``meta``, and leaves out what would fill them.

    On ``meta`` as the device of everything, drawing the first number loads torch's compiler: seconds, and 100 MB.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        if func is _EMPTY:
            matrix = func(*args, **{**given, "device": "meta"})
            return matrix if isinstance(matrix, Tensor) and matrix.dim() > 1 else func(*args, **given)
        target = args[0] if args else given.get("tensor")
        if isinstance(target, Tensor) and target.is_meta and _fills(func):
            return target
        return func(*args, **given)


def _fills(func: Callable[..., object]) -> bool:
    """Tell what changes a tensor in place: torch.nn.init's functions, ``normal_`` and the like, ``/=`` and the like."""
    name = getattr(func, "__name__", "")
    in_place = (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE_OPERATORS
    return in_place or getattr(func, "__module__", None) == "torch.nn.init"


def _check(path: Path, key: str, tensor: Tensor, expected: Tensor | None, config_file: Path) -> None:
    if expected is None:
        raise CheckpointError(f"{path}: {key} does not belong to the model that {config_file.name} describes.")
    if tensor.shape != expected.shape:
        raise CheckpointError(
            f"{path}: {key} has shape {tuple(tensor.shape)}; {config_file.name} asks for {tuple(expected.shape)}."
        )
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path}: {key} holds {tensor.dtype}; give weights that are not quantized.")
    # The sum first: it is finite only where all are, and many times faster than asking each.
    if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.to(torch.float32).isfinite().all():
        raise CheckpointError(f"{path}: {key} holds values that are not finite; the file is damaged.")


def _holder(found: ModelFolder, name: str) -> Weights:
    return found.weights[-1 if name.startswith(_PROJECTION) else 0]
