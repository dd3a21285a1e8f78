"""Model folders on disk: ``config.json``, ``model.safetensors``, ``tokenizer.json``, ``README.md`` (the model card).

Matrices may be stored in 8 bits: ``name`` int8 ``(rows, columns)`` and ``name.scale`` float32 ``(rows, 1)``, the value
being their product; they are expanded at load. All else is float32. Nothing is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from encoder.errors import CheckpointError
from encoder.model import EncoderModel
from encoder.model_config import CONFIG_FILE, WEIGHTS_FILE, load_model_config

_FORMAT = {"format": "mamba-search/1"}
_SCALE = ".scale"


def load_model(folder: Path, device: str = "cpu") -> EncoderModel:
    """Build the model that a folder describes and load its weights, ready to read (not to train).

    :class:`CheckpointError` names the file and the key where one is missing, left over, of the wrong shape or not
    finite.
    """
    config = load_model_config(folder)
    with torch.device("meta"):
        model = EncoderModel(config)
    path = folder / WEIGHTS_FILE
    stored = _expand(path, _read(path))
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in stored:
            raise CheckpointError(f"{path}: {name} is missing; the model's {CONFIG_FILE} asks for it.")
        if stored[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(stored[name].shape)}; {CONFIG_FILE} asks for {tuple(tensor.shape)}."
            )
        if not torch.isfinite(stored[name]).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite; the file is damaged.")
    extra = sorted(stored.keys() - expected.keys())
    if extra:
        raise CheckpointError(f"{path}: {extra[0]} does not belong to the model that {CONFIG_FILE} describes.")
    model.load_state_dict(stored, assign=True)
    return model.to(device).eval().requires_grad_(requires_grad=False)


def save_model(folder: Path, model: EncoderModel, *, bits: int = 32) -> None:
    """Write configuration and weights; ``bits`` 8 stores every matrix in 8 bits, 32 keeps all as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(model.config.model_dump(), indent=2) + "\n", encoding="utf-8")
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        value = tensor.detach().float().cpu().contiguous()
        if bits == 8 and value.dim() == 2:
            tensors[name], tensors[name + _SCALE] = quantize_rows(value)
        else:
            tensors[name] = value
    # Write beside and rename, so that a crash leaves the old file or the new one.
    partial = folder / (WEIGHTS_FILE + ".partial")
    safetensors.torch.save_file(tensors, partial, metadata=_FORMAT)
    partial.replace(folder / WEIGHTS_FILE)


def quantize_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Round ``(rows, columns)`` to int8 with one scale per row, ``(rows, 1)``, so that the largest value is 127."""
    scale = matrix.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return torch.round(matrix / scale).to(torch.int8), scale


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error}); give a whole model folder."
        ) from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is cut short: {error}.") from error


def _expand(path: Path, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn 8-bit matrices back into float32."""
    expanded: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in stored:
            continue
        if tensor.dtype == torch.int8:
            scale = stored.get(name + _SCALE)
            if scale is None or scale.shape != (tensor.shape[0], 1):
                raise CheckpointError(f"{path}: {name}{_SCALE} is missing or not ({tensor.shape[0]}, 1).")
            expanded[name] = tensor.float() * scale
        else:
            expanded[name] = tensor.float()
    return expanded
