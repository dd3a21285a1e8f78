"""Which generations of each document are committed, in memory: a search compares what it finds. Knows no engine."""

from __future__ import annotations

from collections.abc import Iterable

from ingest.index.interface import DocumentKey, Generations
from ingest.index.records import RecordState


class CommittedGenerations:
    """What the records of an engine list; some 250 bytes a document."""

    def __init__(self) -> None:
        self._tenants: dict[str, dict[str, tuple[int, ...]]] = {}
        self.document_count = 0
        self.state_count = 0  # tombstones are states, too

    def add(self, key: DocumentKey, generations: tuple[int, ...]) -> None:
        """Count what is known of a document that was not known before; of a tombstone there are no generations."""
        self.state_count += 1
        self._set(key, generations)

    def change(self, key: DocumentKey, before: RecordState | None, after: RecordState) -> None:
        """Follow a change of what is known of a document."""
        self.state_count += before is None
        self._set(key, after.record.generations if after.record else ())

    def drop_tombstone(self) -> None:
        """Count a tombstone no longer."""
        self.state_count -= 1

    def of(self, key: DocumentKey) -> tuple[int, ...]:
        """Give a document's committed generations, ascending; none where there is no such document."""
        return self._tenants.get(key.tenant, {}).get(key.document_id, ())

    def among(self, tenant: str, document_ids: Iterable[str]) -> Generations:
        """Give those of some of a tenant's documents; those that are not committed are left out."""
        known = self._tenants.get(tenant, {})
        return {name: known[name] for name in document_ids if name in known}

    def _set(self, key: DocumentKey, generations: tuple[int, ...]) -> None:
        documents = self._tenants.setdefault(key.tenant, {})
        self.document_count += bool(generations) - (key.document_id in documents)
        if generations:
            documents[key.document_id] = generations
        else:
            documents.pop(key.document_id, None)
            if not documents:
                del self._tenants[key.tenant]
