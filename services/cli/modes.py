"""How chunks are scored, as the command line spells it.

:class:`services.search.results.SearchMode` costs an import.
"""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """By embeddings, by words (BM25), or by both."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"
