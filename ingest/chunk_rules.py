"""By which rules the chunks of an index are made. An index is made by one set of them, as its fingerprint says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ChunkEncoding = Literal["alone", "one-pass"]
OVERLAP_TOKENS_MAX = 128  # half of a chunk


@dataclass(frozen=True, slots=True)
class ChunkRules:
    """How chunks are cut and encoded."""

    encoding: ChunkEncoding = "alone"  # each on its own, or all in one pass through their document
    overlap_tokens: int = 0  # that a chunk may repeat of the one before
