"""What an encoder is, seen from outside: texts in, embeddings out. Knows no torch, no gRPC.

Two classes fulfil :class:`Encoder`: ``encoder.local.LocalEncoder`` (the model in this process) and
``encoder.client.EncoderClient`` (the encoder service).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """Which model encodes, and its limits (all in tokens, the end-of-sequence token included, or in texts)."""

    model: str
    fingerprint: str
    dimension: int
    query_tokens_max: int
    passage_tokens_max: int
    batch_size_max: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """Embeddings of a list of texts, in the texts' order."""

    embeddings: NDArray[np.float32]  # (n, d), each row of length 1
    token_counts: tuple[int, ...]  # (n,), the end-of-sequence token included
    tokenize_time_s: float = 0.0  # spent on turning the texts into tokens, where the encoder tells


class Encoder(Protocol):
    """Turns texts into L2-normalized embeddings.

    Both roles raise the errors of :mod:`encoder.errors`: :class:`InvalidInput` for an empty
    list, an empty text or one over its limit; :class:`EncoderUnavailable` where the service cannot be reached.
    """

    async def info(self) -> EncoderInfo:
        """Say which model encodes, and its limits."""

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Encode search queries."""

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Encode passages, the texts to be found."""

    async def close(self) -> None:
        """Let go of connections and threads."""
