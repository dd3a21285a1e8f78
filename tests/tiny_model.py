"""A model folder of a few kilobytes: the real architecture and tokenizer, weights at random."""

import shutil
from pathlib import Path

import torch

from encoder.checkpoint import save_model
from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER, ModelConfig
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer


def save_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a model folder that loads in milliseconds; texts that share words are somewhat near one another."""
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    config = ModelConfig(
        name="tiny",
        architecture="mamba2",
        vocabulary_size=tokenizer.vocabulary_size,
        d_model=32,
        n_layers=1,
        d_state=16,
        head_dim=16,
        eos_token="[SEP]",
    )
    torch.manual_seed(seed)
    save_model(folder, EncoderModel(config))
    shutil.copy(DEFAULT_MODEL_FOLDER / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    return folder
