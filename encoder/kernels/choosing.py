"""Which code computes the blocks: chosen once, when a model is loaded for inference.

A path is a class that stands in for :class:`encoder.mamba.Block`, made from it, with the same ``forward``, or for the
whole backbone. It may keep its weights in another form, so that a prepared model cannot be trained or saved. What no
path covers (Mamba-1 on a CPU, the switches for research, the Transformer) runs as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from encoder.kernels import fused, upstream
from encoder.kernels.cpu import CpuBlock
from encoder.kernels.onnx_texts import OnnxTexts
from encoder.mamba import Block, Mamba
from encoder.model import EncoderModel
from encoder.model_config import ModelConfig

_PIECE_TOKENS_CUDA = 8192
# What keeps a large device busy. Of wider models fewer tokens do, and need much memory.
_TOKENS_FUSED, _TOKENS_FUSED_MIN = 131_072, 8192
# CUDA graphs of models so wide that launching takes no time beside computing are for short texts only, not for pieces.
_WIDE, _GRAPH_TOKENS_WIDE = 1024, 512
_ATTENTION_TOKENS_CUDA = 131_072

Kernels = Literal["auto", "fused", "mamba_ssm", "torch"]

logger = logging.getLogger(__name__)


class OneCall(Protocol):
    """Embeds packs of some sizes in one call of its runtime, as many small ones take longer to ask for than to run."""

    def takes(self, lengths: Sequence[int]) -> bool:
        """Say whether it takes texts of these lengths, all at once."""

    def embed(self, rows: Sequence[Tensor]) -> Tensor:
        """Embed rows of token ids ``(l,)`` on the CPU, which :meth:`takes` accepts.

        Returns ``(n, d)`` float32, each row of length 1.
        """


class Path(NamedTuple):
    """What computes the blocks, and how many tokens it likes to read in one call.

    As many as keep the device busy, fit its memory or caches, and overflow no kernel's index.
    """

    name: str
    pack_tokens: int  # of texts, end to end
    piece_tokens: int  # of one document
    one_call: OneCall | None = None


def prepare(
    model: EncoderModel,
    dtype: torch.dtype,
    *,
    half_weights: bool = False,
    kernels: Kernels = "auto",
    eight_bits: bool = False,
) -> Path:
    """Put the fastest path for the model's device in place of its blocks.

    ``half_weights`` lets the factored scan's blocks keep the weights of float32 products in float16. ``eight_bits``
    lets factors be rounded to 8 bits: on a CPU those of short texts, on a GPU those of the fused kernels' products.
    ``kernels`` asks for some, to compare with: ``ValueError``, with the reason, where they cannot run.
    """
    config, device = model.config, model.backbone.embedding.weight.device
    path, reasons = Path("plain torch", pack_tokens=1024, piece_tokens=512), list[str]()
    if device.type != "cuda" and kernels in ("fused", "mamba_ssm"):
        raise ValueError(f"{kernels} kernels run on CUDA devices, not on {device}")
    if config.architecture == "transformer":
        path = path._replace(name="attention")
        if device.type == "cuda":
            path = path._replace(pack_tokens=_ATTENTION_TOKENS_CUDA)
    elif device.type == "cuda":
        path, reasons = _prepare_on_gpu(model, dtype, kernels, eight_bits=eight_bits)
    elif kernels == "auto" and _cpu_covers(config):
        path = path._replace(name="factored scan", one_call=OnnxTexts.of(model) if eight_bits else None)
        _replace(model.backbone, partial(CpuBlock, half_weights=half_weights), dtype)
    why = f" ({'; '.join(reasons)})" if reasons else ""
    logger.info("%s on %s computes in %s with %s%s", config.name, device, dtype, path.name, why)
    return path


def _prepare_on_gpu(
    model: EncoderModel, dtype: torch.dtype, kernels: Kernels, *, eight_bits: bool
) -> tuple[Path, list[str]]:
    """Take the first of our kernels, mamba_ssm's and torch that runs here; say why those before it do not."""
    config, device, reasons = model.config, model.backbone.embedding.weight.device, list[str]()
    if kernels in ("auto", "fused"):
        reason = fused.missing(config, device, dtype)
        if not reason:
            from encoder.kernels.fused.backbone import FusedMamba  # needs Triton
            from encoder.kernels.fused.capturing import Capture
            from encoder.kernels.fused.graphs import PackGraphs
            from encoder.kernels.fused.piece_graphs import PieceGraphs

            model.backbone = backbone = FusedMamba(model.backbone, dtype, eight_bits=eight_bits)
            most = min(_tokens_fused(config.d_model), fused.tokens_per_call_max(config))
            backbone.reserve(most)
            backbone.warm_up()
            name = "fused kernels, products in 8 bits" if eight_bits else "fused kernels"
            # Of the mean, hidden states of all tokens are wanted.
            graphs = None
            if config.pooling != "mean":
                capture, wide = Capture(device), config.d_model > _WIDE
                graphs = PackGraphs(model, _GRAPH_TOKENS_WIDE if wide else most, capture)
                backbone.pieces = None if wide else PieceGraphs(backbone, most, capture)
            return Path(name, most, most, graphs), []
        reasons.append(f"fused kernels cannot: {reason}")
    if kernels in ("auto", "mamba_ssm"):
        reason = upstream.missing(config)
        if not reason:
            most = upstream.tokens_per_call_max(config)
            _replace(model.backbone, upstream.UpstreamBlock, dtype)
            return Path("mamba_ssm", pack_tokens=most, piece_tokens=min(_PIECE_TOKENS_CUDA, most)), reasons
        reasons.append(f"mamba_ssm cannot: {reason}")
    if kernels in ("fused", "mamba_ssm"):
        raise ValueError("; ".join(reasons))
    return Path("plain torch", pack_tokens=_PIECE_TOKENS_CUDA, piece_tokens=_PIECE_TOKENS_CUDA), reasons


def _tokens_fused(d_model: int) -> int:
    """Give how many tokens to read at once: a token's products grow with the square of the width."""
    tokens = _TOKENS_FUSED
    while tokens > _TOKENS_FUSED_MIN and tokens * d_model**2 > _TOKENS_FUSED * _WIDE**2:
        tokens //= 2
    return tokens


def _cpu_covers(config: ModelConfig) -> bool:
    return config.architecture == "mamba2" and config.selective and not config.bidirectional


def _replace(backbone: Mamba, path: Callable[[Block, torch.dtype], nn.Module], dtype: torch.dtype) -> None:
    for number, block in enumerate(backbone.layers):
        assert isinstance(block, Block)
        # One at a time: the weights of a large model are never held twice.
        backbone.layers[number] = path(block, dtype)
