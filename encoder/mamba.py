"""The Mamba backbone in plain torch: token ids in, hidden states out. Knows no tokenizer, no pooling, no gRPC.

Letters of the shapes in the comments, here and in ``encoder/mixers.py``:

    b  batch                 l  length in tokens      d  model width           e  inner width, expand * d
    h  heads, e / p          p  channels of a head    g  groups sharing B, C   n  state size
    k  taps of the convolution                        f  width of the convolution: e + 2 g n; in Mamba-1, e

Sources: Gu and Dao 2023 (arXiv 2312.00752); Dao and Gu 2024 (arXiv 2405.21060); mamba_ssm/models/mixer_seq_simple.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from encoder.mixers import LayerState, Mamba1Mixer, Mamba2Mixer, RMSNorm
from encoder.model_config import ModelConfig
from encoder.packing import Packing, to_device
from encoder.transformer import TransformerBlock


class Block(nn.Module):
    """Pre-norm residual block round a mixer; the residual stays float32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        mixer = Mamba1Mixer if config.architecture == "mamba1" else Mamba2Mixer
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = mixer(config)
        self.mixer_reverse = mixer(config) if config.bidirectional else None

    def forward(
        self,
        residual: Tensor,
        dtype: torch.dtype,
        state: LayerState | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, LayerState | None]:
        """Read ``residual (b, l, d)`` float32, computing in ``dtype``; return the new residual and state."""
        u = self.norm(residual).to(dtype)
        mixed, state = self.mixer(u, state, packing)
        if self.mixer_reverse is not None:
            backwards, _ = self.mixer_reverse(u.flip(1), None, None if packing is None else packing.reversed())
            mixed = mixed + backwards.flip(1)
        return residual + mixed.float(), state


class Mamba(nn.Module):
    """Embedding, blocks, final norm. For research the blocks may be a Transformer's (``encoder/transformer.py``)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.d_model)
        block = TransformerBlock if config.architecture == "transformer" else Block
        self.layers = nn.ModuleList(block(config) for _ in range(config.n_layers))
        self.norm_f = RMSNorm(config.d_model, config.norm_eps)
        self.apply(lambda module: _initialize(module, config.n_layers))

    def forward(
        self,
        tokens: Tensor,
        dtype: torch.dtype,
        states: Sequence[LayerState | None] | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, list[LayerState | None]]:
        """Read ``tokens (b, l)`` on from ``states``, one per layer; or, with ``packing``, sequences end to end.

        Matrix products run in ``dtype``. Returns the hidden states ``(b, l, d)``, float32, and the new states (with
        ``packing`` these may be None). ``ValueError`` where packed sequences or a bidirectional model are to read on
        from states.
        """
        if states is not None and (packing is not None or self.config.bidirectional):
            raise ValueError("packed sequences and bidirectional models cannot read on from states")
        after: list[LayerState | None] = [None] * len(self.layers) if states is None else list(states)
        residual = self.read_layers(range(len(self.layers)), self.enter(tokens), dtype, after, packing)
        return self.norm_f(residual), after

    def hidden_packed(self, tokens: Tensor, lengths: Sequence[int], dtype: torch.dtype, *, ends_only: bool) -> Tensor:
        """Give the hidden states of sequences laid end to end in ``tokens (1, l)``.

        Of each sequence's last token, ``(len(lengths), d)`` float32; or of all tokens, ``(l, d)``.
        """
        packing = Packing.of(lengths, self.config.d_conv, tokens.device)
        states: list[LayerState | None] = [None] * len(self.layers)
        residual = self.read_layers(range(len(self.layers)), self.enter(tokens), dtype, states, packing)[0]
        if ends_only:
            # Picked before the norm: only these are needed, and there are hundreds of others for each.
            residual = residual[to_device(torch.tensor(lengths), tokens.device).cumsum(0) - 1]
        hidden: Tensor = self.norm_f(residual)
        return hidden

    def hidden_on(
        self, tokens: Tensor, states: list[LayerState | None], dtype: torch.dtype, places: Tensor | None
    ) -> Tensor:
        """Give the hidden states of ``tokens (1, l)``, read on from ``states``, which are replaced by the new ones.

        At ``places (n)``, ``(n, d)`` float32; or of all tokens, ``(l, d)``.
        """
        residual = self.read_layers(range(len(self.layers)), self.enter(tokens), dtype, states)[0]
        hidden: Tensor = self.norm_f(residual if places is None else residual[places])
        return hidden

    def enter(self, tokens: Tensor) -> Tensor:
        """Give what the first layer reads: ``(b, l)`` to ``(b, l, d)`` float32."""
        embedded: Tensor = self.embedding(tokens)
        return embedded.float()

    def read_layers(
        self,
        layers: range,
        residual: Tensor,
        dtype: torch.dtype,
        states: list[LayerState | None],
        packing: Packing | None = None,
    ) -> Tensor:
        """Let some layers read ``residual (b, l, d)`` on from the ``states`` of all, where each puts its new one."""
        for number in layers:
            residual, states[number] = self.layers[number](residual, dtype, states[number], packing)
        return residual


def _initialize(module: nn.Module, n_layers: int) -> None:
    """Small normal embeddings; out_proj scaled down by depth, as residual sums grow with it (mixer_seq_simple.py)."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, Mamba1Mixer | Mamba2Mixer):
        with torch.no_grad():
            module.out_proj.weight /= math.sqrt(n_layers)
