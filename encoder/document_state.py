"""The state of a model in the midst of a document as bytes: a safetensors file with the model's fingerprint in it.

Per layer the last inputs of the convolution and the state of the scan, float32: for Mamba-2
``4 * n_layers * (d_conv - 1) * (d_inner + 2 * n_groups * d_state) + 4 * n_layers * d_inner * d_state`` bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import safetensors
import safetensors.torch
import torch

from encoder.errors import FingerprintMismatch, InvalidInput
from encoder.mixers import LayerState, state_shapes
from encoder.model_config import ModelConfig

_FORMAT = "mamba-search-state/1"


def pack_state(states: Sequence[LayerState | None], fingerprint: str) -> bytes:
    """Write the states of all layers (each None: nothing was read yet) with the fingerprint of their model."""
    tensors = {}
    for number, layer in enumerate(states):
        if layer is None:
            continue
        tensors[f"{number}.conv"] = layer.conv.float().cpu().contiguous()
        tensors[f"{number}.ssm"] = layer.ssm.float().cpu().contiguous()
    return safetensors.torch.save(tensors, {"format": _FORMAT, "fingerprint": fingerprint})


def unpack_state(
    data: bytes | None, fingerprint: str, config: ModelConfig, device: torch.device | str
) -> list[LayerState | None]:
    """Read what :func:`pack_state` wrote; None stands for a document that nothing was read of.

    :class:`FingerprintMismatch` for the state of another model, :class:`InvalidInput` for what is damaged or no state.
    """
    nothing: list[LayerState | None] = [None] * config.n_layers
    if data is None:
        return nothing
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors = safetensors.torch.load(data)
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InvalidInput("state", f"state ({len(data)} bytes) is not a document's state, or is cut short.") from error
    if header.get("format") != _FORMAT:
        raise InvalidInput("state", f"state has the format {header.get('format')!r}; {_FORMAT!r} can be read.")
    if header.get("fingerprint") != fingerprint:
        raise FingerprintMismatch(
            f"The document's state was made by the model {header.get('fingerprint')}, this one is {fingerprint}; "
            "read the document anew."
        )
    if not tensors:
        return nothing
    states: list[LayerState | None] = []
    for number in range(config.n_layers):
        layer = LayerState(*(tensors.get(f"{number}.{part}", torch.empty(0)) for part in LayerState._fields))
        for part, value, shape in zip(LayerState._fields, layer, state_shapes(config), strict=True):
            if value.shape != shape or not torch.isfinite(value).all():
                raise InvalidInput("state", f"state: {number}.{part} is missing, not {shape} or not finite.")
        states.append(LayerState(layer.conv.to(device), layer.ssm.to(device)))
    return states


def state_bytes(config: ModelConfig) -> int:
    """Give the size of a document's state, without the file's header."""
    conv, ssm = state_shapes(config)
    floats = sum(torch.Size(shape).numel() for shape in (conv, ssm))
    return 4 * config.n_layers * floats
