"""The embedded index for whoever hands on what it reads: as JSON, the way the engine keeps it.

Its reader is :class:`ingest.index.remote.RemoteIndex`, in another process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.index import points
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import ChunkKey, DocumentKey, IndexAnswer, Scope, SparseVector

if TYPE_CHECKING:
    from qdrant_edge import Payload


class WrittenIndex(EmbeddedIndex):
    """What the index owner opens."""

    async def get_records_written(self, keys: Sequence[DocumentKey]) -> list[str]:
        """Read the records that exist."""
        points.check_read("keys", len(keys))
        found = await self._read(lambda: self._engine.get_state_payloads(keys))
        return _written([payload for payload in found if points.is_record(payload)])

    async def read_hits_written(self, chunks: Sequence[ChunkKey]) -> list[str]:
        """Read the chunks that exist, and their documents' records."""
        return _written(await self._hit_payloads(chunks))

    async def search_written(
        self, embedding: NDArray[np.float32] | None, sparse: SparseVector | None, limit: int, scope: Scope, first: int
    ) -> tuple[IndexAnswer, list[str]]:
        """Search, and give apart what was read of the ``first`` hits."""
        answer, payloads = await self._find(embedding, sparse, limit, scope, first)
        return answer, _written(payloads)


def _written(payloads: Sequence[Payload]) -> list[str]:
    return [json.dumps(payload, ensure_ascii=False) for payload in payloads]
