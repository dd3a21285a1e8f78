"""The index in another process of this machine: a gRPC client of the index owner. Fulfils ``VectorIndex``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Collection, Sequence
from typing import Self, TypeVar

import grpc
import numpy as np
from mambasearch.v1 import index_pb2, index_pb2_grpc
from numpy.typing import NDArray

from encoder.credentials import showing
from encoder.errors import IndexUnavailable
from encoder.grpc_errors import error_of
from encoder.traced_channel import TracedChannel
from ingest.index import points, wire
from ingest.index.gathering import TOGETHER_MAX, Gathering
from ingest.index.interface import (
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

READ_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 120.0

_Response = TypeVar("_Response")


class RemoteIndex:
    """Asks the index owner; make it inside the event loop that uses it. It does not retry: every call is idempotent."""

    def __init__(self, target: str, *, dimension: int, fingerprint: str, token: str | None = None) -> None:
        self.fingerprint = fingerprint
        self.dimension = dimension
        self._service = f"the index owner at {target}"
        self._channel = grpc.aio.insecure_channel(
            target,
            options=[
                ("grpc.max_send_message_length", wire.MESSAGE_BYTES_MAX),
                ("grpc.max_receive_message_length", wire.MESSAGE_BYTES_MAX),
                # A restarted owner is found again within a second (gRPC's own maximum is two minutes).
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._stub = index_pb2_grpc.IndexServiceStub(TracedChannel(showing(self._channel, token)))
        self._counting = Gathering(self._count_all, TOGETHER_MAX)
        self._committing = Gathering(self._commit_all, TOGETHER_MAX)

    @classmethod
    async def connect(cls, target: str, *, dimension: int, fingerprint: str, token: str | None = None) -> Self:
        """Have the owner open its index, or make it.

        :class:`IndexUnavailable` where the owner cannot be reached; :class:`FingerprintMismatch` where another model
        or chunker made the index.
        """
        index = cls(target, dimension=dimension, fingerprint=fingerprint, token=token)
        request = index_pb2.OpenIndexRequest(fingerprint=fingerprint, dimension=dimension)
        try:
            await index._call(index._stub.OpenIndex(request, timeout=READ_TIMEOUT_S))
        except BaseException:
            await index.close()
            raise
        return index

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks; :meth:`commit_record` makes them last."""
        points.check_batch(chunks, self.dimension)
        if chunks:
            await self._call(self._stub.UpsertChunks(wire.upsert_to_message(chunks), timeout=WRITE_TIMEOUT_S))

    async def count_chunks(self, key: DocumentKey, *generations: int) -> int:
        """Count the chunks of some generations."""
        versions = index_pb2.IndexVersions(key=wire.key_to_message(key), generations=generations)
        return await self._counting.ask(versions)

    async def commit_record(self, record: DocumentRecord, *, in_place_of: int | None = None) -> bool:
        """Make a generation the visible one, unless it is fenced."""
        points.check_generation(record.generation)
        commit = index_pb2.IndexCommit(record=wire.record_to_message(record), in_place_of=in_place_of)
        return await self._committing.ask(commit)

    async def fence(self, key: DocumentKey, generation: int) -> DocumentRecord | None:
        """Refuse commits up to a generation; give the committed record."""
        points.check_generation(generation, 0)
        request = index_pb2.FenceDocumentRequest(key=wire.key_to_message(key), generation=generation)
        response = await self._call(self._stub.FenceDocument(request, timeout=WRITE_TIMEOUT_S))
        return wire.record_from_message(response.record) if response.HasField("record") else None

    async def get_fences(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        """Read how far documents are fenced."""
        points.check_read("keys", len(keys))
        request = index_pb2.GetFencesRequest(keys=map(wire.key_to_message, keys))
        response = await self._call(self._stub.GetFences(request, timeout=READ_TIMEOUT_S))
        return {wire.key_from_message(message.key): message.generation for message in response.fences}

    async def get_records(
        self,
        keys: Sequence[DocumentKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,  # noqa: ARG002 - there is one copy
    ) -> dict[DocumentKey, DocumentRecord]:
        """Read the records that exist."""
        points.check_read("keys", len(keys))
        request = index_pb2.GetRecordsRequest(keys=map(wire.key_to_message, keys))
        response = await self._call(self._stub.GetRecords(request, timeout=READ_TIMEOUT_S))
        found = map(points.read_record, map(json.loads, response.written))
        return {record.key: record for record in found}

    async def list_records(self, tenant: str | None, after: str, limit: int) -> tuple[list[DocumentRecord], str]:
        """Read a page of a tenant's records."""
        points.check_limit(limit, READ_MAX)
        request = index_pb2.ListRecordsRequest(tenant=tenant, after=after, limit=limit)
        response = await self._call(self._stub.ListRecords(request, timeout=READ_TIMEOUT_S))
        return [wire.record_from_message(message) for message in response.records], response.next

    async def get_chunks(self, key: DocumentKey, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks, in order."""
        points.check_read("last", last - first + 1)
        request = index_pb2.GetChunksRequest(
            key=wire.key_to_message(key), generation=generation, first=first, last=last
        )
        response = await self._call(self._stub.GetChunks(request, timeout=READ_TIMEOUT_S))
        return [wire.chunk_from_message(message) for message in response.chunks]

    async def read_chunks(
        self,
        chunks: Sequence[ChunkKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,  # noqa: ARG002 - there is one copy
    ) -> dict[ChunkKey, StoredChunk]:
        """Read the chunks that exist."""
        points.check_read("chunks", len(chunks))
        request = index_pb2.ReadChunksRequest(chunks=map(wire.chunk_key_to_message, chunks))
        response = await self._call(self._stub.ReadChunks(request, timeout=READ_TIMEOUT_S))
        found = map(wire.chunk_from_message, response.chunks)
        return {chunk.chunk_key: chunk for chunk in found}

    async def read_hits(
        self,
        chunks: Sequence[ChunkKey],
        *,
        consistency: ReadConsistency = ReadConsistency.DEFAULT,  # noqa: ARG002 - there is one copy
    ) -> HitsRead:
        """Read the chunks that exist, and their documents' records."""
        points.check_read("chunks", len(chunks))
        request = index_pb2.ReadHitsRequest(chunks=map(wire.chunk_key_to_message, chunks))
        response = await self._call(self._stub.ReadHits(request, timeout=READ_TIMEOUT_S))
        return points.read_hits(map(json.loads, response.written))

    async def get_embeddings(self, chunks: Sequence[ChunkKey]) -> dict[ChunkKey, NDArray[np.float32]]:
        """Read the embeddings of the chunks that exist."""
        points.check_read("chunks", len(chunks))
        request = index_pb2.GetEmbeddingsRequest(chunks=map(wire.chunk_key_to_message, chunks))
        response = await self._call(self._stub.GetEmbeddings(request, timeout=READ_TIMEOUT_S))
        keys = map(wire.chunk_key_from_message, response.chunks)
        return dict(zip(keys, wire.embeddings_from_bytes(response.embeddings, len(response.chunks)), strict=True))

    async def delete_record(self, key: DocumentKey, generation: int) -> bool:
        """Leave a tombstone."""
        points.check_generation(generation)
        request = index_pb2.DeleteRecordRequest(key=wire.key_to_message(key), generation=generation)
        response: index_pb2.DeleteRecordResponse = await self._call(
            self._stub.DeleteRecord(request, timeout=WRITE_TIMEOUT_S)
        )
        return response.deleted

    async def drop_tombstone(self, key: DocumentKey, generation: int) -> None:
        """Forget a tombstone of just this generation."""
        request = index_pb2.DropTombstoneRequest(key=wire.key_to_message(key), generation=generation)
        await self._call(self._stub.DropTombstone(request, timeout=WRITE_TIMEOUT_S))

    async def delete_chunks(
        self, key: DocumentKey, *, generation: int | None = None, below: int | None = None, keep: Collection[int] = ()
    ) -> int:
        """Delete one generation, or all below one but those to keep."""
        points.check_chosen(generation, below, keep)
        request = index_pb2.DeleteChunksRequest(
            key=wire.key_to_message(key), generation=generation, below=below, keep=keep
        )
        response: index_pb2.DeleteChunksResponse = await self._call(
            self._stub.DeleteChunks(request, timeout=WRITE_TIMEOUT_S)
        )
        return response.count

    async def search(
        self,
        embedding: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        limit: int,
        scope: Scope,
        *,
        read_first: int = 0,
    ) -> IndexAnswer:
        """Find the nearest chunks, and the best by BM25."""
        points.check_search(embedding, self.dimension, limit, scope, read_first)
        request = wire.search_to_message(embedding, sparse, limit, scope, read_first)
        answer = await self._call(self._stub.SearchIndex(request, timeout=READ_TIMEOUT_S))
        return wire.answer_from_message(scope.tenant, answer)

    async def stats(self) -> IndexStats:
        """Count documents and chunks."""
        request = index_pb2.GetIndexStatsRequest()
        response = await self._call(self._stub.GetIndexStats(request, timeout=READ_TIMEOUT_S))
        return IndexStats(document_count=response.document_count, chunk_count=response.chunk_count)

    async def flush(self) -> None:
        """Have the owner write to the disk what only its memory holds."""
        await self._call(self._stub.FlushIndex(index_pb2.FlushIndexRequest(), timeout=WRITE_TIMEOUT_S))

    async def close(self) -> None:
        """Close the connection; the owner keeps the index open."""
        await self._channel.close()

    async def _count_all(self, versions: Sequence[index_pb2.IndexVersions]) -> Sequence[int]:
        request = index_pb2.CountChunksRequest(versions=versions)
        response: index_pb2.CountChunksResponse = await self._call(
            self._stub.CountChunks(request, timeout=READ_TIMEOUT_S)
        )
        return response.counts

    async def _commit_all(self, commits: Sequence[index_pb2.IndexCommit]) -> Sequence[bool]:
        request = index_pb2.CommitRecordsRequest(commits=commits)
        response: index_pb2.CommitRecordsResponse = await self._call(
            self._stub.CommitRecords(request, timeout=WRITE_TIMEOUT_S)
        )
        return response.committed

    async def _call(self, call: Awaitable[_Response]) -> _Response:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise error_of(
                error.code(),
                error.details() or "",
                tuple(error.trailing_metadata()),
                unavailable=IndexUnavailable,
                service=self._service,
            ) from error
