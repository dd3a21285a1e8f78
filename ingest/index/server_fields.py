"""What a server's chunks carry of their documents, and whether they count: written apart from the chunks themselves."""

from __future__ import annotations

from qdrant_client import AsyncQdrantClient, models

from encoder.errors import TimedOut
from ingest.index import points
from ingest.index.fields import INGESTED_AT, DocumentFields
from ingest.index.server_connection import translated
from ingest.index.server_models import COMMITTED

# Numbers and times of more names are found by reading every chunk's payload.
RANGES_INDEXED_MAX = 256


class ServerFields:
    """Writes to the chunks of one collection that a filter chooses."""

    def __init__(self, client: AsyncQdrantClient, collection: str, service: str) -> None:
        self._client = client
        self._collection = collection
        self._service = service
        self._ranges = {INGESTED_AT}  # those known to have an index

    async def write(self, chosen: models.Filter, fields: DocumentFields) -> None:
        """Let chunks carry the fields of their document, and count in BM25's statistics."""
        for name in fields.ranges:
            if name not in self._ranges and len(self._ranges) < RANGES_INDEXED_MAX:
                async with translated(self._service):
                    await self._client.create_payload_index(
                        self._collection, points.range_path(name), models.PayloadSchemaType.FLOAT, wait=True
                    )
                self._ranges.add(name)
        await self._set_payload(chosen, {**points.fields_payload(fields), COMMITTED: points.YES})

    async def leave_out(self, chosen: models.Filter) -> None:
        """Let chunks count no longer; they are deleted later."""
        await self._set_payload(chosen, {COMMITTED: points.NO})

    async def _set_payload(self, chosen: models.Filter, payload: models.Payload) -> None:
        async with translated(self._service):
            result = await self._client.set_payload(
                self._collection, payload, models.FilterSelector(filter=chosen), wait=True
            )
        check_applied(result, self._service)


def check_applied(result: models.UpdateResult, service: str) -> None:
    """Raise :class:`TimedOut` where a server has accepted a write and not applied it."""
    if result.status != models.UpdateStatus.COMPLETED:
        raise TimedOut(f"Qdrant on {service} accepted a write but did not apply it in time; try again.")
