"""``mamba-search ingest --growing``: documents on their way, marked as ones that may grow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

from ingest.documents import Document
from ingest.index.interface import DocumentKey
from ingest.receipts import LoadError, Receipt
from services.cli.watch import Target


class Growing:
    """A target all of whose documents may grow."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def ingest(self, items: Iterator[Document | LoadError]) -> AsyncGenerator[Receipt, None]:
        """Ingest documents; give a receipt for each."""
        return self._target.ingest(
            item if isinstance(item, LoadError) else replace(item, growing=True) for item in items
        )

    async def delete(self, key: DocumentKey) -> None:
        """Take a document out; :class:`encoder.errors.NotFound` where there is none."""
        await self._target.delete(key)
