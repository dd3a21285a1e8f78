"""Backbone, pooling, projection and normalization as one module: token ids in, embeddings out. Knows no text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder.mamba import Mamba
from encoder.mixers import LayerState
from encoder.model_config import ModelConfig
from encoder.packing import Packing, rows_of_like_length, to_device


class EncoderModel(nn.Module):
    """The hidden state at the end-of-sequence token, projected (if the model says so), with length 1.

    Mamba Retriever (arXiv 2408.08066), section 3: the last token has read all others, so its state stands for the
    text; similarity is the cosine. Other poolings: the mean of a text's hidden states, or its last token, whatever
    that is.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Mamba(config)
        self.projection = (
            nn.Linear(config.d_model, config.projection_dim, bias=config.projection_bias)
            if config.projection_dim is not None
            else None
        )

    def forward(self, tokens: Tensor, ends: Tensor, dtype: torch.dtype) -> Tensor:
        """Embed ``tokens (b, l)``, each row read up to its last token at ``ends (b,)``.

        What stands right of a row's end does not matter. Returns ``(b, d)`` float32, each row of length 1.
        """
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        packing = Packing.of_rows(ends, tokens.shape[1]) if self.config.bidirectional else None
        return self._embed_places(tokens, torch.stack([rows, ends], dim=1), dtype, None, packing)[0]

    def embed_places(
        self,
        tokens: Tensor,
        places: Tensor,
        dtype: torch.dtype,
        states: Sequence[LayerState | None] | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, list[LayerState | None]]:
        """Embed what ends at ``places (n, 2)``, row and position, of ``tokens (b, l)``: the shape that training likes.

        A row may hold several chunks of a document, or with ``packing`` several texts or documents; places stand in
        order of row, then position. The rows are read on from ``states`` (of :class:`encoder.mamba.Mamba`); with mean
        pooling a chunk must not have begun before. Returns ``(n, d)`` float32, each row of length 1, and the states
        after. ``ValueError`` for bidirectional models.
        """
        if self.config.bidirectional:
            raise ValueError("a bidirectional model cannot read several chunks of a row")
        return self._embed_places(tokens, places, dtype, states, packing)

    def _embed_places(
        self,
        tokens: Tensor,
        places: Tensor,
        dtype: torch.dtype,
        states: Sequence[LayerState | None] | None,
        packing: Packing | None,
    ) -> tuple[Tensor, list[LayerState | None]]:
        n_layers, norm_f = self.config.n_layers, self.backbone.norm_f
        after: list[LayerState | None] = [None] * n_layers if states is None else list(states)
        residual = self.backbone.read_layers(range(n_layers), self.backbone.enter(tokens), dtype, after, packing)
        rows, ends = places.unbind(1)
        if self.config.pooling != "mean":
            # Picked before the norm: only these are needed, and a row has hundreds of others.
            return self.finish(norm_f(residual[rows, ends])), after
        sums = norm_f(residual).cumsum(1)
        follows = torch.cat([rows.new_zeros(1, dtype=torch.bool), rows[1:] == rows[:-1]])
        before = torch.where(follows, ends.roll(1), -1)  # (n,): where the chunk before ended
        earlier = sums[rows, before.clamp_min(0)] * follows[:, None]
        return self.finish((sums[rows, ends] - earlier) / (ends - before)[:, None]), after

    def embed_packed(self, tokens: Tensor, lengths: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Embed sequences laid end to end in ``tokens (1, l)``: ``(len(lengths), d)`` float32, each row of length 1."""
        if self.config.architecture == "transformer":
            return self._embed_as_rows(tokens[0], lengths, dtype)
        mean = self.config.pooling == "mean"
        hidden = self.backbone.hidden_packed(tokens, lengths, dtype, ends_only=not mean)
        if not mean:
            return self.finish(hidden)
        counts = to_device(torch.tensor(lengths), tokens.device)
        numbers = torch.arange(len(lengths), device=tokens.device)
        owners = torch.repeat_interleave(numbers, counts, output_size=len(hidden))
        sums = hidden.new_zeros(len(lengths), hidden.shape[-1]).index_add_(0, owners, hidden)
        return self.finish(sums / counts[:, None])

    def _embed_as_rows(self, tokens: Tensor, lengths: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Embed sequences laid end to end in ``tokens (l,)`` row by row: attention in one row would be quadratic."""
        texts = tokens.split(list(lengths))
        embeddings = torch.empty(len(lengths), self.config.embedding_dim, device=tokens.device)
        for numbers in rows_of_like_length(lengths):
            rows = nn.utils.rnn.pad_sequence([texts[number] for number in numbers], batch_first=True)
            counts = [lengths[number] for number in numbers]
            ends = torch.tensor(counts, device=tokens.device) - 1
            places = torch.stack([torch.arange(len(rows), device=tokens.device), ends], dim=1)
            # Without padding there is nothing to mask, and attention takes its fastest kernel.
            packing = None if min(counts) == max(counts) else Packing.of_rows(ends, rows.shape[1])
            embeddings[numbers] = self._embed_places(rows, places, dtype, None, packing)[0]
        return embeddings

    def finish(self, pooled: Tensor) -> Tensor:
        """Project and normalize pooled hidden states ``(n, d_model)``: ``(n, d)`` float32."""
        if self.projection is not None:
            bias = self.projection.bias
            pooled = F.linear(pooled, self.projection.weight.float(), None if bias is None else bias.float())
        return F.normalize(pooled, dim=-1)


def truncate(embeddings: Tensor, width: int) -> Tensor:
    """Keep the first ``width`` numbers of each embedding ``(..., d)`` and bring them to length 1 again.

    What a model trained for it (Matryoshka representations, Kusupati et al. 2022, arXiv 2205.13147) has put first says
    most.
    """
    return F.normalize(embeddings[..., :width], dim=-1)
