"""Backbone, pooling, projection and normalization as one module: token ids in, embeddings out. Knows no text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder.mamba import PIECE_TOKENS, LayerState, Mamba
from encoder.model_config import ModelConfig


class EncoderModel(nn.Module):
    """The hidden state at the end-of-sequence token, projected (if the model says so), with length 1.

    Mamba Retriever (arXiv 2408.08066), section 3: the last token has read all others, so its state stands for the
    text; similarity is the cosine.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Mamba(config)
        self.projection = (
            nn.Linear(config.d_model, config.projection_dim, bias=False) if config.projection_dim is not None else None
        )

    def forward(self, tokens: Tensor, ends: Tensor, dtype: torch.dtype) -> Tensor:
        """Embed ``tokens (b, l)``, each row read up to its end-of-sequence token at ``ends (b,)``.

        What stands right of a row's end does not matter: the backbone reads from left to right. Longer rows than one
        piece are read piece by piece. Returns ``(b, d)`` float32, each row of length 1.
        """
        pooled = self._pool(tokens, ends, dtype)
        if self.projection is not None:
            pooled = F.linear(pooled, self.projection.weight.float())
        return F.normalize(pooled, dim=-1)

    def _pool(self, tokens: Tensor, ends: Tensor, dtype: torch.dtype) -> Tensor:
        if tokens.shape[1] <= PIECE_TOKENS:
            hidden, _ = self.backbone(tokens, dtype)
            return _rows_at(hidden, ends)
        pooled = torch.zeros(tokens.shape[0], self.config.d_model, device=tokens.device)
        states: list[LayerState] | None = None
        for start in range(0, tokens.shape[1], PIECE_TOKENS):
            piece = tokens[:, start : start + PIECE_TOKENS]
            hidden, states = self.backbone(piece, dtype, states)
            inside = (ends >= start) & (ends < start + piece.shape[1])
            here = _rows_at(hidden, (ends - start).clamp(0, piece.shape[1] - 1))
            pooled = torch.where(inside[:, None], here, pooled)
        return pooled


def _rows_at(hidden: Tensor, positions: Tensor) -> Tensor:
    """Pick one row per text: ``(b, l, d)`` and ``(b,)`` to ``(b, d)``."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), positions]
