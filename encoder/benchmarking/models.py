"""Which model the benchmark reads with: a named size with weights at random, or a folder. Each contender gets its own.

Weights at random cost what trained ones cost; they depend on nothing but the size, so that contenders can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from encoder.checkpoint import build_empty, load_model
from encoder.errors import InvalidInput
from encoder.fingerprint import model_fingerprint
from encoder.layouts.opening import open_model
from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER, ModelConfig
from encoder.sizes import SIZES
from encoder.tokenizer import Tokenizer
from encoder.weights import is_matrix

DEFAULT, TINY = "default", "tiny"
_TINY = ModelConfig(
    name=TINY,
    architecture="mamba2",
    vocabulary_size=30_528,
    d_model=64,
    n_layers=2,
    d_state=16,
    head_dim=16,
    pooling="last",
)
_NAMED: Mapping[str, ModelConfig] = MappingProxyType({**SIZES, "mamba1-130m": SIZES["mamba-130m"], TINY: _TINY})


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Makes one model any number of times."""

    config: ModelConfig
    tokenizer: Tokenizer
    fingerprint: str
    trained: bool
    build: Callable[[torch.device, torch.dtype], EncoderModel]

    @property
    def parameters(self) -> int:
        """Count them."""
        return sum(parameter.numel() for parameter in build_empty(self.config).parameters())


def open_source(model: str) -> ModelSource:
    """Find a model by its name (``default``, ``tiny``, ``mamba1-130m``, those of ``encoder/sizes.py``) or its folder.

    A model with weights at random reads the default model's tokens. :class:`InvalidInput` where there is none of that
    name, :class:`~encoder.errors.CheckpointError` where a folder is not a whole model.
    """
    if model == DEFAULT or (model not in _NAMED and Path(model).is_dir()):
        return _of_folder(DEFAULT_MODEL_FOLDER if model == DEFAULT else Path(model))
    config = _NAMED.get(model)
    if config is None:
        known = ", ".join([DEFAULT, *_NAMED])
        raise InvalidInput("model", f"model is {model!r}; give a folder, or one of {known}.")

    def build(device: torch.device, dtype: torch.dtype) -> EncoderModel:
        return build_random(config, device, dtype)

    return ModelSource(config, Tokenizer.load(DEFAULT_MODEL_FOLDER), "random", trained=False, build=build)


def build_random(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> EncoderModel:
    """Make a model with weights at random, always the same; its matrices in ``dtype``, all else float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = EncoderModel(config)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(device=device, dtype=dtype if is_matrix(name) else torch.float32)
    return model.to(device).eval().requires_grad_(requires_grad=False)


def _of_folder(folder: Path) -> ModelSource:
    def build(device: torch.device, dtype: torch.dtype) -> EncoderModel:
        return load_model(folder, device, dtype)

    found = open_model(folder)
    return ModelSource(found.config, Tokenizer.load(folder), model_fingerprint(folder), trained=True, build=build)
