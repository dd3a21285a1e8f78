"""What ingestion alone costs is measured with: an encoder that does no work, and documents of real paragraphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from encoder.evaluation.datasets import load_evaluation_set
from encoder.interface import Encoded, EncoderInfo
from ingest.documents import Document

DIMENSION = 384
TEXTS = Path("encoder/evaluation/datasets/squad_xquad_en")


class ZeroCostEncoder:
    """Gives rows of a table made beforehand; counts its calls."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._table = generator.standard_normal((4096, DIMENSION), dtype=np.float32)
        self._table /= np.linalg.norm(self._table, axis=1, keepdims=True)
        self.calls = 0

    async def info(self) -> EncoderInfo:
        return EncoderInfo("zero", "zero", DIMENSION, 512, 8192, 1024)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        self.calls += 1
        return Encoded(self._table[: len(passages)], (1,) * len(passages))


def make_documents(count: int, paragraphs_each: int) -> Iterator[Document]:
    """Make documents of paragraphs of the set that ships, in another order each."""
    paragraphs = [document.text for document in load_evaluation_set(TEXTS).documents]
    generator = np.random.default_rng(1)
    for number in range(count):
        chosen = generator.choice(len(paragraphs), paragraphs_each, replace=False)
        text = "\n\n".join(paragraphs[place] for place in chosen)
        yield Document(f"document-{number}", text, title=f"Number {number}")
