"""Hits grouped by document, the best chunks of each. Knows no index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ingest.index.interface import ChunkKey
from services.search.ranking import Ranking


def by_document(ranking: Ranking, chunks_max: int) -> Mapping[str, Sequence[ChunkKey]]:
    """Group chunks by document: documents in the order of their best chunk, each with its best ones."""
    groups: dict[str, list[ChunkKey]] = {}
    for key in ranking.order:
        chunks = groups.setdefault(key.document_id, [])
        if len(chunks) < chunks_max:
            chunks.append(key)
    return groups
