"""The index on a Qdrant server (or in qdrant-client's local mode): one collection. Fulfils ``VectorIndex``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

import grpc
import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from encoder.errors import FingerprintMismatch, IndexUnavailable, InvalidInput, Overloaded, StorageFull, TimedOut
from ingest.index import points
from ingest.index.interface import DocumentRecord, IndexedChunk, IndexHit, IndexStats, SparseVector, StoredChunk

REST_PORT = 6333
TIMEOUT_S = 30
_INDEXED_FIELDS = {
    points.KIND: models.PayloadSchemaType.KEYWORD,
    points.DOCUMENT_ID: models.PayloadSchemaType.KEYWORD,
    points.GENERATION: models.PayloadSchemaType.INTEGER,
}


class ServerIndex:
    """Asks Qdrant through its client; every write waits until it is applied."""

    def __init__(
        self, client: AsyncQdrantClient, collection: str, *, service: str, dimension: int, fingerprint: str
    ) -> None:
        self.fingerprint = fingerprint
        self.dimension = dimension
        self._client = client
        self._collection = collection
        self._service = service

    @classmethod
    async def open(cls, server: str | AsyncQdrantClient, *, collection: str, dimension: int, fingerprint: str) -> Self:
        """Open a collection, or make it. ``server`` is an address, or a client of which the index then disposes.

        An address names the REST port (6333 where it names none); gRPC is used, on the port after it.
        :class:`IndexUnavailable` where the server cannot be reached; :class:`FingerprintMismatch` where another model
        or chunker made the collection.
        """
        client, service = (_connect(server), server) if isinstance(server, str) else (server, "local mode")
        index = cls(client, collection, service=service, dimension=dimension, fingerprint=fingerprint)
        try:
            await index._bind()
        except BaseException:
            await client.close()
            raise
        return index

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks."""
        points.check_batch(chunks, self.dimension)
        if chunks:
            await self._upsert([_point(indexed) for indexed in chunks])

    async def count_chunks(self, document_id: str, generation: int) -> int:
        """Count a generation's chunks."""
        return await self._count(_chunks_of(document_id, only=generation))

    async def commit_record(self, record: DocumentRecord) -> None:
        """Make a generation the visible one."""
        point_id = points.record_point_id(record.document_id)
        await self._upsert([models.PointStruct(id=point_id, vector={}, payload=points.record_payload(record))])

    async def get_records(self, document_ids: Sequence[str]) -> dict[str, DocumentRecord]:
        """Read the records that exist."""
        points.check_read("document_ids", len(document_ids))
        payloads = await self._payloads([points.record_point_id(document_id) for document_id in document_ids])
        records = [points.read_record(payload) for payload in payloads]
        return {record.document_id: record for record in records}

    async def get_chunks(self, document_id: str, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks, in order."""
        points.check_read("last", last - first + 1)
        ids = [points.chunk_point_id(document_id, generation, index) for index in range(first, last + 1)]
        chunks = [points.read_chunk(payload) for payload in await self._payloads(ids)]
        return sorted(chunks, key=lambda chunk: chunk.chunk_index)

    async def delete_generations(self, document_id: str, *, keep: int) -> int:
        """Delete all generations but one."""
        return await self._delete_chunks(_chunks_of(document_id, but=keep))

    async def delete_document(self, document_id: str) -> int:
        """Delete the record, then the chunks."""
        async with self._translated():
            result = await self._client.delete(self._collection, [points.record_point_id(document_id)], wait=True)
        self._check_applied(result)
        return await self._delete_chunks(_chunks_of(document_id))

    async def search_dense(self, embedding: NDArray[np.float32], limit: int) -> list[IndexHit]:
        """Find the nearest chunks."""
        points.check_limit(limit)
        points.check_embedding(embedding, self.dimension)
        return await self._search(embedding.tolist(), points.DENSE, limit)

    async def search_sparse(self, sparse: SparseVector, limit: int) -> list[IndexHit]:
        """Find the best chunks by BM25."""
        points.check_limit(limit)
        if not len(sparse.indices):
            return []
        return await self._search(_sparse(sparse), points.SPARSE, limit)

    async def stats(self) -> IndexStats:
        """Count documents and chunks."""
        return IndexStats(
            document_count=await self._count(models.Filter(must=[_match(points.KIND, points.KIND_RECORD)])),
            chunk_count=await self._count(_chunks_of(None)),
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def _bind(self) -> None:
        async with self._translated():
            if not await self._client.collection_exists(self._collection):
                await self._create()
            for field, schema in _INDEXED_FIELDS.items():
                await self._client.create_payload_index(self._collection, field, schema, wait=True)
            metadata = (await self._client.get_collection(self._collection)).config.metadata or {}
        found = (metadata.get("fingerprint"), metadata.get("dimension"))
        if found != (self.fingerprint, self.dimension):
            raise FingerprintMismatch(
                f"Collection {self._collection} on {self._service} was made with {found[0]} (dimension {found[1]}), "
                f"but {self.fingerprint} (dimension {self.dimension}) is in use; use that model, or name another "
                "collection and ingest again."
            )

    async def _create(self) -> None:
        try:
            await self._client.create_collection(
                self._collection,
                vectors_config={
                    points.DENSE: models.VectorParams(size=self.dimension, distance=models.Distance.COSINE)
                },
                sparse_vectors_config={points.SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                metadata={"fingerprint": self.fingerprint, "dimension": self.dimension},
            )
        except (grpc.RpcError, ApiException):
            # Another process may have been faster; whose collection it is, the caller checks.
            if not await self._client.collection_exists(self._collection):
                raise

    async def _upsert(self, batch: list[models.PointStruct]) -> None:
        async with self._translated():
            result = await self._client.upsert(self._collection, batch, wait=True)
        self._check_applied(result)

    async def _delete_chunks(self, chosen: models.Filter) -> int:
        count = await self._count(chosen)
        if count:
            async with self._translated():
                result = await self._client.delete(self._collection, models.FilterSelector(filter=chosen), wait=True)
            self._check_applied(result)
        return count

    async def _count(self, chosen: models.Filter) -> int:
        async with self._translated():
            return (await self._client.count(self._collection, count_filter=chosen, exact=True)).count

    async def _payloads(self, ids: list[str]) -> list[models.Payload]:
        if not ids:
            return []
        async with self._translated():
            found = await self._client.retrieve(self._collection, list(ids), with_payload=True)
        return [record.payload for record in found if record.payload]

    async def _search(self, query: list[float] | models.SparseVector, using: str, limit: int) -> list[IndexHit]:
        async with self._translated():
            found = await self._client.query_points(
                self._collection,
                query=query,
                using=using,
                query_filter=_chunks_of(None),
                limit=limit,
                with_payload=True,
            )
        return [IndexHit(points.read_chunk(hit.payload or {}), hit.score) for hit in found.points]

    def _check_applied(self, result: models.UpdateResult) -> None:
        if result.status != models.UpdateStatus.COMPLETED:
            raise TimedOut(f"Qdrant on {self._service} accepted a write but did not apply it in time; try again.")

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except ResourceExhaustedResponse as error:
            raise Overloaded(f"Qdrant on {self._service} refuses more: {error}.", error.retry_after_s) from error
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimedOut(f"Qdrant on {self._service} gave no answer in {TIMEOUT_S} s; try again.") from error
            raise self._failure(f"{error.code().name}: {details}") from error
        except UnexpectedResponse as error:
            raise self._failure(f"{error.status_code} {error.content[:300]!r}") from error
        except (ApiException, QdrantException, OSError) as error:
            raise self._failure(str(error) or type(error).__name__) from error

    def _failure(self, reason: str) -> IndexUnavailable | StorageFull:
        if "No space left" in reason:
            return StorageFull(f"The disk of Qdrant on {self._service} is full ({reason}); free some space.")
        return IndexUnavailable(
            f"Qdrant on {self._service} failed or cannot be reached ({reason}); start it, or correct its address."
        )


def _connect(address: str) -> AsyncQdrantClient:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("qdrant_url", f"qdrant_url is {address!r}; give an address as http://127.0.0.1:6333.")
    port = parts.port or REST_PORT
    return AsyncQdrantClient(
        url=address, port=port, grpc_port=port + 1, prefer_grpc=True, timeout=TIMEOUT_S, check_compatibility=False
    )


def _point(indexed: IndexedChunk) -> models.PointStruct:
    chunk = indexed.chunk
    vectors: dict[str, models.Vector] = {points.DENSE: indexed.embedding.tolist()}
    if len(indexed.sparse.indices):
        vectors[points.SPARSE] = _sparse(indexed.sparse)
    point_id = points.chunk_point_id(chunk.document_id, chunk.generation, chunk.chunk_index)
    return models.PointStruct(id=point_id, vector=vectors, payload=points.chunk_payload(chunk))


def _sparse(sparse: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=sparse.indices.tolist(), values=sparse.values.tolist())


def _match(field: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def _chunks_of(document_id: str | None, *, only: int | None = None, but: int | None = None) -> models.Filter:
    must: list[models.Condition] = [_match(points.KIND, points.KIND_CHUNK)]
    if document_id is not None:
        must.append(_match(points.DOCUMENT_ID, document_id))
    if only is not None:
        must.append(_match(points.GENERATION, only))
    return models.Filter(must=must, must_not=[_match(points.GENERATION, but)] if but is not None else None)
