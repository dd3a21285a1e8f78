"""A model folder of a few kilobytes: the real architecture and tokenizer, weights at random."""

import shutil
from pathlib import Path

import torch

from encoder.checkpoint import save_model
from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER, ModelConfig
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer


def tiny_config(*, n_layers: int = 1, vocabulary_size: int = 100, projection_dim: int | None = 24) -> ModelConfig:
    """A small Mamba-2."""
    return ModelConfig(
        name="tiny",
        architecture="mamba2",
        vocabulary_size=vocabulary_size,
        d_model=32,
        n_layers=n_layers,
        d_state=16,
        head_dim=16,
        projection_dim=projection_dim,
        eos_token="[SEP]",
    )


def save_tiny_model(folder: Path, *, seed: int = 0, vocabulary_size: int | None = None) -> Path:
    """Write a model folder that loads in milliseconds; texts that share words are somewhat near one another."""
    if vocabulary_size is None:
        vocabulary_size = Tokenizer.load(DEFAULT_MODEL_FOLDER).vocabulary_size
    torch.manual_seed(seed)
    save_model(folder, EncoderModel(tiny_config(vocabulary_size=vocabulary_size, projection_dim=None)))
    shutil.copy(DEFAULT_MODEL_FOLDER / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    return folder
