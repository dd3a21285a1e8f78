"""Which code computes the blocks: chosen once, when a model is loaded for inference.

A path is a class that stands in for :class:`encoder.mamba.Block`, made from it, with the same ``forward``. It may keep
its weights in another form, so that a prepared model cannot be trained or saved. What no path covers (Mamba-1 on a
CPU, the switches for research, the Transformer) runs as it is.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import nn

from encoder.kernels import upstream
from encoder.kernels.cpu import CpuBlock
from encoder.mamba import Block, Mamba
from encoder.model_config import ModelConfig

_PIECE_TOKENS_CUDA = 8192
_ATTENTION_TOKENS_CUDA = 131_072

logger = logging.getLogger(__name__)


class Path(NamedTuple):
    """What computes the blocks, and how many tokens it likes to read in one call.

    As many as keep the device busy, fit its memory or caches, and overflow no kernel's index.
    """

    name: str
    pack_tokens: int  # of texts, end to end
    piece_tokens: int  # of one document


def prepare(backbone: Mamba, dtype: torch.dtype) -> Path:
    """Put the fastest path for the backbone's device in place of its blocks."""
    config, device = backbone.config, backbone.embedding.weight.device
    path, reason = Path("plain torch", pack_tokens=1024, piece_tokens=512), ""
    if config.architecture == "transformer":
        path = path._replace(name="attention")
        if device.type == "cuda":
            path = path._replace(pack_tokens=_ATTENTION_TOKENS_CUDA)
    elif device.type == "cuda":
        reason = upstream.missing(config)
        if reason:
            path = path._replace(pack_tokens=_PIECE_TOKENS_CUDA, piece_tokens=_PIECE_TOKENS_CUDA)
        else:
            most = upstream.tokens_per_call_max(config)
            path = Path("mamba_ssm", pack_tokens=most, piece_tokens=min(_PIECE_TOKENS_CUDA, most))
            _replace(backbone, upstream.UpstreamBlock, dtype)
    elif _cpu_covers(config):
        path = path._replace(name="factored scan")
        _replace(backbone, CpuBlock, dtype)
    logger.info("%s on %s computes in %s with %s%s", config.name, device, dtype, path.name, reason and f" ({reason})")
    return path


def _cpu_covers(config: ModelConfig) -> bool:
    return config.architecture == "mamba2" and config.selective and not config.bidirectional


def _replace(backbone: Mamba, path: type[nn.Module], dtype: torch.dtype) -> None:
    for number, block in enumerate(backbone.layers):
        assert isinstance(block, Block)
        # One at a time: the weights of a large model are never held twice.
        backbone.layers[number] = path(block, dtype)
