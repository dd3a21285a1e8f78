"""Small indexes in memory with chunks whose embeddings and words are chosen, and searchers over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.documents import MetadataValue
from ingest.index.interface import BATCH_CHUNKS_MAX, IndexedChunk
from ingest.index.memory import MemoryIndex
from services.search.fusion import FusionWeights
from services.search.searcher import Searcher
from tests.fakes import FakeEncoder
from tests.indexes import make_chunk, make_record

DIMENSION = 8
TOKENIZER = Tokenizer.load(DEFAULT_MODEL_FOLDER)


def at(cosine: float, axis: int = 1) -> NDArray[np.float32]:
    """An embedding with this cosine to the first axis, which queries lie on; the rest of it along another."""
    embedding = np.zeros(DIMENSION, dtype=np.float32)
    embedding[0], embedding[axis] = cosine, np.sqrt(1 - cosine * cosine)
    return embedding


QUERY = at(1.0)


@dataclass
class Corpus:
    """An index in memory, and a searcher that is asked with :data:`QUERY`."""

    index: MemoryIndex = field(default_factory=lambda: MemoryIndex(dimension=DIMENSION, fingerprint="f"))
    fusion: FusionWeights | None = None

    @property
    def searcher(self) -> Searcher:
        return Searcher(FakeEncoder(dimension=DIMENSION), self.index, TOKENIZER, self.fusion)

    async def put(
        self,
        document_id: str,
        chunks: Sequence[tuple[NDArray[np.float32], str]],
        *,
        generation: int = 1,
        tenant: str = "default",
        metadata: Mapping[str, MetadataValue] | None = None,
    ) -> list[IndexedChunk]:
        """Make a document of embeddings and texts visible."""
        made = [
            replace(
                make_chunk(document_id, place, text, generation=generation, tenant=tenant),
                embedding=embedding,
            )
            for place, (embedding, text) in enumerate(chunks)
        ]
        for start in range(0, len(made), BATCH_CHUNKS_MAX):
            await self.index.upsert_chunks(made[start : start + BATCH_CHUNKS_MAX])
        record = make_record(document_id, generation=generation, chunk_count=len(made), tenant=tenant)
        await self.index.commit_record(replace(record, metadata=metadata or {}))
        return made

    async def put_many(self, count: int, first: int = 0) -> None:
        """Put documents of one chunk each, ``d000`` the most like the query and with the rarest words."""
        for number in range(first, first + count):
            await self.put(f"d{number:03}", [(at(1 - number / 1000), f"apple {'pear ' * (number % 7)}")])
