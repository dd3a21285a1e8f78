"""What makes the chunks of an index, put together by its rules."""

from __future__ import annotations

from dataclasses import dataclass

from encoder.tokenizer import Tokenizer
from ingest.chunk_encoding import ChunkEncoder, make_chunk_encoder
from ingest.chunk_rules import ChunkRules
from ingest.chunking import Chunker


@dataclass(frozen=True, slots=True)
class ChunkMaking:
    """What cuts documents, and what encodes their chunks."""

    chunker: Chunker
    encoder: ChunkEncoder

    @property
    def fingerprint(self) -> str:
        """What decides about chunks and their embeddings, beside the model."""
        return self.encoder.fingerprint(self.chunker.fingerprint)


def make_chunk_making(rules: ChunkRules, tokenizer: Tokenizer) -> ChunkMaking:
    """Put both together."""
    return ChunkMaking(
        Chunker(tokenizer, overlap_tokens=rules.overlap_tokens), make_chunk_encoder(rules.encoding, tokenizer)
    )
