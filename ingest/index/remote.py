"""The index in another process of this machine: a gRPC client of the index owner. Fulfils ``VectorIndex``."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Self, TypeVar

import grpc
import numpy as np
from mambasearch.v1 import index_pb2, index_pb2_grpc
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable
from encoder.grpc_errors import error_of
from ingest.index import points, wire
from ingest.index.interface import DocumentRecord, IndexedChunk, IndexHit, IndexStats, SparseVector, StoredChunk

READ_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 120.0

_Response = TypeVar("_Response")


class RemoteIndex:
    """Asks the index owner; make it inside the event loop that uses it. It does not retry: every call is idempotent."""

    def __init__(self, target: str, *, dimension: int, fingerprint: str) -> None:
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
        self._stub = index_pb2_grpc.IndexServiceStub(self._channel)

    @classmethod
    async def connect(cls, target: str, *, dimension: int, fingerprint: str) -> Self:
        """Have the owner open its index, or make it.

        :class:`IndexUnavailable` where the owner cannot be reached; :class:`FingerprintMismatch` where another model
        or chunker made the index.
        """
        index = cls(target, dimension=dimension, fingerprint=fingerprint)
        request = index_pb2.OpenIndexRequest(fingerprint=fingerprint, dimension=dimension)
        try:
            await index._call(index._stub.OpenIndex(request, timeout=READ_TIMEOUT_S))
        except BaseException:
            await index.close()
            raise
        return index

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks durably."""
        points.check_batch(chunks, self.dimension)
        if chunks:
            await self._call(self._stub.UpsertChunks(wire.upsert_to_message(chunks), timeout=WRITE_TIMEOUT_S))

    async def count_chunks(self, document_id: str, generation: int) -> int:
        """Count a generation's chunks."""
        request = index_pb2.CountChunksRequest(document_id=document_id, generation=generation)
        response: index_pb2.CountChunksResponse = await self._call(
            self._stub.CountChunks(request, timeout=READ_TIMEOUT_S)
        )
        return response.count

    async def commit_record(self, record: DocumentRecord) -> None:
        """Make a generation the visible one."""
        request = index_pb2.CommitRecordRequest(record=wire.record_to_message(record))
        await self._call(self._stub.CommitRecord(request, timeout=WRITE_TIMEOUT_S))

    async def get_records(self, document_ids: Sequence[str]) -> dict[str, DocumentRecord]:
        """Read the records that exist."""
        points.check_read("document_ids", len(document_ids))
        request = index_pb2.GetRecordsRequest(document_ids=document_ids)
        response = await self._call(self._stub.GetRecords(request, timeout=READ_TIMEOUT_S))
        return {message.document_id: wire.record_from_message(message) for message in response.records}

    async def get_chunks(self, document_id: str, generation: int, first: int, last: int) -> list[StoredChunk]:
        """Read chunks, in order."""
        points.check_read("last", last - first + 1)
        request = index_pb2.GetChunksRequest(document_id=document_id, generation=generation, first=first, last=last)
        response = await self._call(self._stub.GetChunks(request, timeout=READ_TIMEOUT_S))
        return [wire.chunk_from_message(message) for message in response.chunks]

    async def delete_generations(self, document_id: str, *, keep: int) -> int:
        """Delete all generations but one."""
        request = index_pb2.DeleteGenerationsRequest(document_id=document_id, keep=keep)
        response: index_pb2.DeleteGenerationsResponse = await self._call(
            self._stub.DeleteGenerations(request, timeout=WRITE_TIMEOUT_S)
        )
        return response.count

    async def delete_document(self, document_id: str) -> int:
        """Delete the record, then the chunks."""
        request = index_pb2.DeleteIndexedDocumentRequest(document_id=document_id)
        response: index_pb2.DeleteIndexedDocumentResponse = await self._call(
            self._stub.DeleteIndexedDocument(request, timeout=WRITE_TIMEOUT_S)
        )
        return response.count

    async def search_dense(self, embedding: NDArray[np.float32], limit: int) -> list[IndexHit]:
        """Find the nearest chunks."""
        points.check_limit(limit)
        points.check_embedding(embedding, self.dimension)
        request = index_pb2.SearchDenseRequest(embedding=wire.embeddings_to_bytes([embedding]), limit=limit)
        return wire.hits_from_message(await self._call(self._stub.SearchDense(request, timeout=READ_TIMEOUT_S)))

    async def search_sparse(self, sparse: SparseVector, limit: int) -> list[IndexHit]:
        """Find the best chunks by BM25."""
        points.check_limit(limit)
        request = index_pb2.SearchSparseRequest(sparse=wire.sparse_to_message(sparse), limit=limit)
        return wire.hits_from_message(await self._call(self._stub.SearchSparse(request, timeout=READ_TIMEOUT_S)))

    async def stats(self) -> IndexStats:
        """Count documents and chunks."""
        request = index_pb2.GetIndexStatsRequest()
        response = await self._call(self._stub.GetIndexStats(request, timeout=READ_TIMEOUT_S))
        return IndexStats(document_count=response.document_count, chunk_count=response.chunk_count)

    async def close(self) -> None:
        """Close the connection; the owner keeps the index open."""
        await self._channel.close()

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
