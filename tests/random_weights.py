"""Backbones whose weights are all at random, those too that begin as ones and zeros."""

import torch

from encoder.mamba import Mamba
from encoder.model import EncoderModel
from encoder.model_config import ModelConfig


def lively(config: ModelConfig, *, seed: int = 0) -> Mamba:
    torch.manual_seed(seed)
    backbone = Mamba(config).eval()
    for name, weight in backbone.named_parameters():
        if weight.dim() == 1 or name.endswith("A_log"):  # the matrices are at random anyway
            weight.data += 0.1 * torch.randn_like(weight)
    return backbone


def model_of(backbone: Mamba) -> EncoderModel:
    """A model round a backbone, its projection (if any) at random."""
    with torch.device("meta"):
        model = EncoderModel(backbone.config).eval()
    model.backbone = backbone
    if model.projection is not None:
        model.projection = model.projection.to_empty(device=backbone.embedding.weight.device)
        model.projection.reset_parameters()
    return model
