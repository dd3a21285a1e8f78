"""Stand-ins for parts that are slow to start."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from encoder.errors import InvalidInput
from encoder.interface import Encoded, EncoderInfo


class FakeEncoder:
    """A deterministic encoder: hashed bag of words, so that texts which share words are near one another."""

    def __init__(self, *, dimension: int = 384, fingerprint: str = "fake", query_tokens_max: int = 512) -> None:
        self._info = EncoderInfo(
            model="fake",
            fingerprint=fingerprint,
            dimension=dimension,
            query_tokens_max=query_tokens_max,
            passage_tokens_max=8192,
            batch_size_max=1024,
        )

    async def info(self) -> EncoderInfo:
        return self._info

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        return self._encode("queries", queries, self._info.query_tokens_max)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        return self._encode("passages", passages, self._info.passage_tokens_max)

    async def close(self) -> None:
        pass

    def _encode(self, field: str, texts: Sequence[str], tokens_max: int) -> Encoded:
        embeddings = np.zeros((len(texts), self._info.dimension), dtype=np.float32)
        counts = []
        for row, text in enumerate(texts):
            words = re.findall(r"\w+", text.lower())
            if not words:
                raise InvalidInput(f"{field}[{row}]", f"{field}[{row}] is empty or only white space.")
            if len(words) + 1 > tokens_max:
                raise InvalidInput(f"{field}[{row}]", f"{field}[{row}] is over {tokens_max} tokens.")
            for word in words:
                digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                embeddings[row, int.from_bytes(digest[:4]) % self._info.dimension] += 1 if digest[4] & 1 else -1
            counts.append(len(words) + 1)
            embeddings[row, 0] += 1e-3  # two words may cancel out
            embeddings[row] /= np.linalg.norm(embeddings[row])
        return Encoded(embeddings=embeddings, token_counts=tuple(counts))
