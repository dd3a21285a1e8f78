"""The index owner: the one process that opens the embedded engine, and serves it to the others on loopback.

Run with ``python -m services.index_owner``. Knows no model: the first caller to open a new index says which made it.
"""
# ruff: noqa: N802, ARG002 - methods are named by the protocol, and take a context

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import grpc
from mambasearch.v1 import index_pb2, index_pb2_grpc

from encoder.errors import IndexUnavailable, InvalidInput, MambaSearchError
from ingest.index import wire
from ingest.index.data_directory import read_manifest
from ingest.index.embedded import EmbeddedIndex
from services.grpc_server import GrpcServer, stop_signal
from services.settings import IndexOwnerSettings
from services.status import exit_code
from services.telemetry import configure_logging

logger = logging.getLogger(__name__)

SERVICE = index_pb2.DESCRIPTOR.services_by_name["IndexService"].full_name
# The search service and the worker each hold one connection; this many calls of each may be under way.
CALLS_MAX = 256

_Context = grpc.aio.ServicerContext[Any, Any]


class IndexOwner(index_pb2_grpc.IndexServiceServicer):
    """Serves the index in one directory; :meth:`close` lets go of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._opened: EmbeddedIndex | None = None
        self._opening = asyncio.Lock()

    async def open_existing(self) -> None:
        """Open the index of a directory that has one; a new directory waits for :meth:`OpenIndex`."""
        manifest = read_manifest(self._directory)
        if manifest is not None:
            await self._open(dimension=manifest.dimension, fingerprint=manifest.fingerprint)

    async def close(self) -> None:
        """Flush, let go of the directory."""
        if self._opened is not None:
            await self._opened.close()

    async def OpenIndex(self, request: index_pb2.OpenIndexRequest, context: _Context) -> index_pb2.OpenIndexResponse:
        """Open or make the index, or check that the open one was made by the same model and chunker."""
        if not request.dimension or not request.fingerprint:
            raise InvalidInput("dimension", "fingerprint and dimension are needed; dimension is at least 1.")
        await self._open(dimension=request.dimension, fingerprint=request.fingerprint)
        return index_pb2.OpenIndexResponse()

    async def UpsertChunks(
        self, request: index_pb2.UpsertChunksRequest, context: _Context
    ) -> index_pb2.UpsertChunksResponse:
        """Write chunks."""
        await self._index.upsert_chunks(wire.upsert_from_message(request))
        return index_pb2.UpsertChunksResponse()

    async def CountChunks(
        self, request: index_pb2.CountChunksRequest, context: _Context
    ) -> index_pb2.CountChunksResponse:
        """Count a generation's chunks."""
        count = await self._index.count_chunks(request.document_id, request.generation)
        return index_pb2.CountChunksResponse(count=count)

    async def CommitRecord(
        self, request: index_pb2.CommitRecordRequest, context: _Context
    ) -> index_pb2.CommitRecordResponse:
        """Make a generation the visible one."""
        await self._index.commit_record(wire.record_from_message(request.record))
        return index_pb2.CommitRecordResponse()

    async def GetRecords(self, request: index_pb2.GetRecordsRequest, context: _Context) -> index_pb2.GetRecordsResponse:
        """Read records."""
        records = await self._index.get_records(list(request.document_ids))
        return index_pb2.GetRecordsResponse(records=[wire.record_to_message(record) for record in records.values()])

    async def GetChunks(self, request: index_pb2.GetChunksRequest, context: _Context) -> index_pb2.GetChunksResponse:
        """Read a run of chunks."""
        chunks = await self._index.get_chunks(request.document_id, request.generation, request.first, request.last)
        return index_pb2.GetChunksResponse(chunks=[wire.chunk_to_message(chunk) for chunk in chunks])

    async def DeleteGenerations(
        self, request: index_pb2.DeleteGenerationsRequest, context: _Context
    ) -> index_pb2.DeleteGenerationsResponse:
        """Delete all generations but one."""
        count = await self._index.delete_generations(request.document_id, keep=request.keep)
        return index_pb2.DeleteGenerationsResponse(count=count)

    async def DeleteIndexedDocument(
        self, request: index_pb2.DeleteIndexedDocumentRequest, context: _Context
    ) -> index_pb2.DeleteIndexedDocumentResponse:
        """Delete a record and its chunks."""
        count = await self._index.delete_document(request.document_id)
        return index_pb2.DeleteIndexedDocumentResponse(count=count)

    async def SearchDense(
        self, request: index_pb2.SearchDenseRequest, context: _Context
    ) -> index_pb2.SearchIndexResponse:
        """Find the nearest chunks."""
        embedding = wire.embeddings_from_bytes(request.embedding, 1)[0]
        return wire.hits_to_message(await self._index.search_dense(embedding, request.limit))

    async def SearchSparse(
        self, request: index_pb2.SearchSparseRequest, context: _Context
    ) -> index_pb2.SearchIndexResponse:
        """Find the best chunks by BM25."""
        sparse = wire.sparse_from_message(request.sparse)
        return wire.hits_to_message(await self._index.search_sparse(sparse, request.limit))

    async def GetIndexStats(
        self, request: index_pb2.GetIndexStatsRequest, context: _Context
    ) -> index_pb2.GetIndexStatsResponse:
        """Count what is in the index."""
        stats = await self._index.stats()
        return index_pb2.GetIndexStatsResponse(document_count=stats.document_count, chunk_count=stats.chunk_count)

    async def _open(self, *, dimension: int, fingerprint: str) -> None:
        async with self._opening:
            if self._opened is None:
                self._opened = await EmbeddedIndex.open(self._directory, dimension=dimension, fingerprint=fingerprint)
                self._opened.optimize_when_due()
            else:
                self._opened.check_made_by(dimension=dimension, fingerprint=fingerprint)

    @property
    def _index(self) -> EmbeddedIndex:
        if self._opened is None:
            raise IndexUnavailable(f"The index in {self._directory} is not open yet; open it first.")
        return self._opened


async def serve(settings: IndexOwnerSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = stop_signal()
    owner = IndexOwner(settings.data_dir)
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: index_pb2_grpc.add_IndexServiceServicer_to_server(owner, grpc_server),
        message_bytes_max=wire.MESSAGE_BYTES_MAX,
        calls_max=CALLS_MAX,
    )
    try:
        await owner.open_existing()
        await server.start(settings.index_host, settings.index_port)
        await server.set_serving(serving=True)
        logger.info("serving %s on %s:%d", settings.data_dir, settings.index_host, server.port)
        await stop.wait()
        await server.stop()
    finally:
        await owner.close()


def main() -> int:
    """Run the index owner; give the exit code."""
    try:
        settings = IndexOwnerSettings.load()
        configure_logging("index-owner", settings.log_level)
        asyncio.run(serve(settings))
    except MambaSearchError as error:
        print(error, file=sys.stderr)  # noqa: T201 - why the process ends
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
