"""The index on a Qdrant server (or in qdrant-client's local mode): one collection. Fulfils ``VectorIndex``."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from encoder.errors import IndexMoved, Overloaded
from ingest.index import points, records
from ingest.index.collections import Collections, MadeBy
from ingest.index.describing import describe
from ingest.index.fields import DocumentFields, fields_of
from ingest.index.interface import (
    FIRST_GENERATION,
    READ_MAX,
    ChunkKey,
    DocumentKey,
    DocumentRecord,
    HitsRead,
    IndexAnswer,
    IndexedChunk,
    IndexStats,
    ReadConsistency,
    Scope,
    SparseVector,
    StoredChunk,
)
from ingest.index.server_address import QdrantServer
from ingest.index.server_connection import translated
from ingest.index.server_fields import ServerFields, check_applied
from ingest.index.server_finding import find_nearest, find_words
from ingest.index.server_models import (
    GENERATIONS_ALONE,
    REVISION,
    WITHOUT_FIELDS,
    chunk_point,
    chunks_below,
    chunks_of,
    embedding_of,
    left_behind,
    matching,
    points_of,
    read_consistency,
    records_of,
)

# Only two writers of one document can be in each other's way, and one of them is stale.
CHANGE_ATTEMPTS_MAX = 10


class ServerIndex:
    """Asks Qdrant through its client; every write waits until it is applied."""

    def __init__(self, client: AsyncQdrantClient, collection: str, *, name: str, service: str, made_by: MadeBy) -> None:
        """``name`` is what the collection was asked for by: itself, or an alias that led to it."""
        self.fingerprint = made_by.fingerprint
        self.dimension = made_by.dimension
        self._client = client
        self._collection = collection
        self._name = name
        self._service = service
        self._fields = ServerFields(client, collection, service)

    @classmethod
    async def open(
        cls, server: str | QdrantServer | AsyncQdrantClient, *, collection: str, dimension: int, fingerprint: str
    ) -> Self:
        """Open a collection, by its name or an alias, or make it.

        ``server`` is an address, or a client of which the index then disposes. An address names the REST port (6333
        where it names none); gRPC is used, on the port after it. The index stays with the collection that the alias
        leads to now: where it comes to lead to another, records are no longer written (:class:`IndexMoved`).
        :class:`IndexUnavailable` where the server cannot be reached; :class:`FingerprintMismatch` where another model
        or chunker made the collection.
        """
        collections = await Collections.open(server)
        made_by = MadeBy(fingerprint, dimension)
        try:
            found = await collections.bind(collection, made_by)
        except BaseException:
            await collections.close()
            raise
        index = cls(collections.client, found, name=collection, service=collections.service, made_by=made_by)
        try:
            await index._describe_all()
        except BaseException:
            await index.close()
            raise
        return index

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks."""
        points.check_batch(chunks, self.dimension)
        if chunks:
            await self._upsert([chunk_point(indexed) for indexed in chunks])

    async def count_chunks(self, key: DocumentKey, *generations: int) -> int:
        """Count the chunks of some generations."""
        return await self._count(chunks_of(key, generations))

    async def commit_record(self, record: DocumentRecord, *, in_place_of: int | None = None) -> bool:
        """Make a generation the visible one, unless it is fenced."""
        points.check_generation(record.generation)
        await self._describe_new(record)
        before, after = await self._change(record.key, records.committing(record, in_place_of=in_place_of))
        if after is None:
            # Its writer deletes its chunks in the end; until then they are not to count.
            await self._fields.leave_out(chunks_of(record.key, [record.generation]))
            return False
        if after.describing:
            await self._describe(record.key)
        elif before and before.record and before.record.generation == record.generation:
            # Its chunks may have been written again since they were described.
            await self._fields.write(chunks_of(record.key, record.generations), fields_of(record))
        if record.generation > FIRST_GENERATION:
            await self._fields.leave_out(left_behind(record.key, record.generations, record.generation))
        return True

    async def fence(self, key: DocumentKey, generation: int) -> DocumentRecord | None:
        """Refuse commits up to a generation; give the committed record."""
        points.check_generation(generation, 0)
        _, after = await self._change(key, records.fencing(generation))
        return after.record if after else None

    async def get_fences(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        """Read how far documents are fenced."""
        points.check_read("keys", len(keys))
        return records.fences(await self._states(keys))

    async def get_records(
        self, keys: Sequence[DocumentKey], *, consistency: ReadConsistency = ReadConsistency.DEFAULT
    ) -> dict[DocumentKey, DocumentRecord]:
        """Read the records that exist."""
        points.check_read("keys", len(keys))
        return records.committed(await self._states(keys, consistency))

    async def list_records(self, tenant: str | None, after: str, limit: int) -> tuple[list[DocumentRecord], str]:
        """Read a page of a tenant's records, or of all."""
        points.check_limit(limit, READ_MAX)
        start = points.page_start(after)
        async with self._translated():
            found, following = await self._client.scroll(
                self._collection, scroll_filter=records_of(tenant), limit=limit, offset=start, with_payload=True
            )
        return [points.read_record(record.payload or {}) for record in found], str(following or "")

    async def get_chunks(self, key: DocumentKey, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks, in order."""
        points.check_read("last", last - first + 1)
        ids = [points.chunk_point_id(ChunkKey(*key, generation, index)) for index in range(first, last + 1)]
        chunks = [points.read_chunk(payload) for payload in await self._payloads(ids)]
        return sorted(chunks, key=lambda chunk: chunk.chunk_index)

    async def read_chunks(
        self,
        chunks: Sequence[ChunkKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,
    ) -> dict[ChunkKey, StoredChunk]:
        """Read the chunks that exist."""
        points.check_read("chunks", len(chunks))
        payloads = await self._payloads([points.chunk_point_id(key) for key in chunks], consistency)
        found = map(points.read_chunk, payloads)
        return {chunk.chunk_key: chunk for chunk in found}

    async def read_hits(
        self,
        chunks: Sequence[ChunkKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,
    ) -> HitsRead:
        """Read the chunks that exist, and their documents' records."""
        points.check_read("chunks", len(chunks))
        return points.read_hits(await self._payloads(points.hit_point_ids(chunks), consistency))

    async def get_embeddings(self, chunks: Sequence[ChunkKey]) -> dict[ChunkKey, NDArray[np.float32]]:
        """Read the embeddings of the chunks that exist."""
        points.check_read("chunks", len(chunks))
        if not chunks:
            return {}
        asked = {points.chunk_point_id(key): key for key in chunks}
        async with self._translated():
            found = await self._client.retrieve(
                self._collection, list(asked), with_payload=False, with_vectors=[points.DENSE]
            )
        return {asked[str(record.id)]: embedding_of(record) for record in found}

    async def delete_record(self, key: DocumentKey, generation: int) -> bool:
        """Leave a tombstone."""
        points.check_generation(generation)
        before, after = await self._change(key, records.deleting(generation))
        if after is not None:
            await self._fields.leave_out(left_behind(key, (), after.fence + 1))
        return records.deleted_by(before, after)

    async def drop_tombstone(self, key: DocumentKey, generation: int) -> None:
        """Forget a tombstone of just this generation."""
        state, revision = await self._state(key)
        if records.is_tombstone(state, generation):
            ours = models.HasIdCondition(has_id=[points.record_point_id(key)])
            await self._delete(models.Filter(must=[ours, matching(REVISION, revision)]))

    async def delete_chunks(
        self, key: DocumentKey, *, generation: int | None = None, below: int | None = None, keep: Collection[int] = ()
    ) -> int:
        """Delete one generation, or all below one but those to keep."""
        points.check_chosen(generation, below, keep)
        chosen = chunks_below(key, below, keep) if below is not None else chunks_of(key, [generation or 0])
        count = await self._count(chosen)
        if count:
            await self._delete(chosen)
        return count

    async def search(
        self,
        embedding: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        limit: int,
        scope: Scope,
        *,
        read_first: int = 0,  # not done: reading is a call of its own
    ) -> IndexAnswer:
        """Find the nearest chunks and the best by BM25 at once, then read what of it is committed."""
        points.check_search(embedding, self.dimension, limit, scope, read_first)
        async with self._translated():
            (dense, dense_s), (words, sparse_s) = await asyncio.gather(
                find_nearest(self._client, self._collection, embedding, limit, scope),
                find_words(self._client, self._collection, sparse, limit, scope),
            )
        keys = points.documents_asked(scope, dense, words)
        committed: dict[str, tuple[int, ...]] = {}
        for start in range(0, len(keys), READ_MAX):
            committed |= await self._committed(keys[start : start + READ_MAX], scope)
        return IndexAnswer(dense, words, committed, dense_s, sparse_s)

    async def stats(self) -> IndexStats:
        """Count documents and chunks; :class:`IndexMoved` where the alias leads to another collection now."""
        await self._check_current()
        document_count, chunk_count = [
            await self._count(models.Filter(must=[matching(points.KIND, kind)]))
            for kind in (points.KIND_RECORD, points.KIND_CHUNK)
        ]
        return IndexStats(document_count=document_count, chunk_count=chunk_count)

    async def flush(self) -> None:
        """Do nothing: every write waited until the server had applied it."""

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def _change(
        self, key: DocumentKey, change: records.Change
    ) -> tuple[records.RecordState | None, records.RecordState | None]:
        """Change what is known of a document; give what was known before, and what the change made of it.

        The server keeps a write where nobody else wrote since this one read, and else drops it without a word: so it is
        read again whose write is there, and the change made anew where it is not this one.
        """
        await self._check_current()
        before, revision = await self._state(key)
        for _ in range(CHANGE_ATTEMPTS_MAX):
            after = change(before)
            if after is None or after == before:
                return before, after
            written = str(uuid.uuid4())
            payload = points.state_payload(key, after) | {REVISION: written}
            point = models.PointStruct(id=points.record_point_id(key), vector={}, payload=payload)
            await self._upsert_over(point, revision)
            found, revision = await self._state(key)
            if revision == written:
                return before, after
            before = found
        raise Overloaded(f"Others keep writing the record of {key.document_id} of {key.tenant}; try again.", 1.0)

    async def _describe_new(self, record: DocumentRecord) -> None:
        """Let the chunks of a generation that is about to be visible carry the record's fields, and count.

        Those of the visible one carry the fields of its record, and are described after another one is written.
        """
        state, _ = await self._state(record.key)
        if state is None or state.record is None or state.record.generation != record.generation:
            await self._fields.write(chunks_of(record.key, [record.generation]), fields_of(record))

    async def _describe_all(self) -> None:
        """Finish what an end in the middle of it has left."""
        describing = models.Filter(must=[matching(points.DESCRIBING, points.YES)])
        while True:
            async with self._translated():
                found, _ = await self._client.scroll(self._collection, scroll_filter=describing, limit=READ_MAX)
            if not found:
                return
            for record in found:
                await self._describe(points.read_state(record.payload or {})[0])

    async def _describe(self, key: DocumentKey) -> None:
        async def read(key: DocumentKey) -> records.RecordState | None:
            return (await self._state(key))[0]

        async def set_fields(ids: Sequence[str], fields: DocumentFields) -> None:
            await self._fields.write(points_of(ids), fields)

        await describe(key, read, set_fields, self._change)

    async def _check_current(self) -> None:
        """Refuse to go on where the alias leads to another collection: what is written here, nobody would see."""
        if self._name == self._collection:
            return
        async with self._translated():
            aliases = (await self._client.get_collection_aliases(self._collection)).aliases
        if self._name not in [alias.alias_name for alias in aliases]:
            raise IndexMoved(f"Alias {self._name} on {self._service} no longer leads to {self._collection}; open anew.")

    async def _state(self, key: DocumentKey) -> tuple[records.RecordState | None, str]:
        """Read what is known of a document, and whose write that is ("" where nothing is known)."""
        for payload in await self._payloads([points.record_point_id(key)]):
            return points.read_state(payload)[1], payload[REVISION]
        return None, ""

    async def _states(
        self, keys: Sequence[DocumentKey], consistency: ReadConsistency = ReadConsistency.DEFAULT
    ) -> dict[DocumentKey, records.RecordState]:
        ids = [points.record_point_id(key) for key in keys]
        return dict(map(points.read_state, await self._payloads(ids, consistency)))

    async def _committed(self, keys: Sequence[DocumentKey], scope: Scope) -> dict[str, tuple[int, ...]]:
        """Read which generations records list; whole records only where a filter has to be compared with them."""
        if scope.filter is not None:
            return records.generations_in(scope, records.committed(await self._states(keys, scope.consistency)))
        ids = [points.record_point_id(key) for key in keys]
        payloads = await self._payloads(ids, scope.consistency, GENERATIONS_ALONE)
        found = filter(points.is_record, payloads)
        return {payload[points.DOCUMENT_ID]: points.read_generations(payload) for payload in found}

    async def _upsert(self, batch: list[models.PointStruct]) -> None:
        async with self._translated():
            result = await self._client.upsert(self._collection, batch, wait=True)
        check_applied(result, self._service)

    async def _upsert_over(self, point: models.PointStruct, revision: str) -> None:
        """Write a record where it still is the one of a revision, or (revision "") where there still is none."""
        known = bool(revision)
        async with self._translated():
            result = await self._client.upsert(
                self._collection,
                [point],
                wait=True,
                update_filter=models.Filter(must=[matching(REVISION, revision)]) if known else None,
                update_mode=models.UpdateMode.UPDATE_ONLY if known else models.UpdateMode.INSERT_ONLY,
                # Costs nothing on one server, and on several lets one of them decide what came first.
                ordering=models.WriteOrdering.STRONG,
            )
        check_applied(result, self._service)

    async def _delete(self, chosen: models.Filter) -> None:
        async with self._translated():
            result = await self._client.delete(self._collection, models.FilterSelector(filter=chosen), wait=True)
        check_applied(result, self._service)

    async def _count(self, chosen: models.Filter) -> int:
        async with self._translated():
            return (await self._client.count(self._collection, count_filter=chosen, exact=True)).count

    async def _payloads(
        self,
        ids: list[str],
        consistency: ReadConsistency = ReadConsistency.DEFAULT,
        chosen: models.PayloadSelector = WITHOUT_FIELDS,
    ) -> list[models.Payload]:
        if not ids:
            return []
        async with self._translated():
            found = await self._client.retrieve(
                self._collection, list(ids), with_payload=chosen, consistency=read_consistency(consistency)
            )
        return [record.payload for record in found if record.payload]

    def _translated(self) -> AbstractAsyncContextManager[None]:
        return translated(self._service)
