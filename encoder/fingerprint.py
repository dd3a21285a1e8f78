"""What made an embedding: weights, pooling, tokenizer, chunker. Embeddings compare only under equal fingerprints."""

from __future__ import annotations

import hashlib
from pathlib import Path

from encoder.model_config import CONFIG_FILE, WEIGHTS_FILE, file_digest
from encoder.tokenizer import TOKENIZER_FILE


def model_fingerprint(folder: Path) -> str:
    """Digest a model folder: configuration (pooling and prompts included), weights and tokenizer. 16 hex digits."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
        digest.update(bytes.fromhex(file_digest(folder / name)))
    return digest.hexdigest()[:16]


def index_fingerprint(model: str, chunker: str) -> str:
    """Join what an index depends on: the model's fingerprint and the chunker's, both readable in the result."""
    return f"model={model} chunker={chunker}"
