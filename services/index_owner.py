"""The index owner: the one process that opens the embedded engine, and serves it to the others on loopback.

Run with ``python -m services.index_owner``. Knows no model: the first caller to open a new index says which made it.
"""
# ruff: noqa: N802, ARG002 - methods are named by the protocol, and take a context

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import grpc
from mambasearch.v1 import index_pb2, index_pb2_grpc, index_search_pb2

from encoder.errors import IndexUnavailable, InvalidInput
from ingest.index import wire
from ingest.index.data_directory import read_manifest
from ingest.index.gathering import TOGETHER_MAX
from ingest.index.written import WrittenIndex
from services.door.door import service_door
from services.door.owner_token import write_owner_token
from services.grpc_server import GrpcServer, stop_signal
from services.observing.index_metrics import IndexOwnerMetrics, index_bytes
from services.observing.process import Observed, measuring, observing
from services.process import run
from services.settings import IndexOwnerSettings

logger = logging.getLogger(__name__)

SERVICE = index_pb2.DESCRIPTOR.services_by_name["IndexService"].full_name
# The search service and the worker each hold one connection; this many calls of each may be under way, and the others
# wait there: those of as many searches, or documents, as the service or the worker lets in.
CALLS_MAX = 256

_Context = grpc.aio.ServicerContext[Any, Any]


class IndexOwner(index_pb2_grpc.IndexServiceServicer):
    """Serves the index in one directory; :meth:`close` lets go of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._opened: WrittenIndex | None = None
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

    @property
    def is_optimizing(self) -> bool:
        """Say whether the index is being optimized."""
        return self._opened is not None and self._opened.is_optimizing

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
        """Count the chunks of some generations."""
        _check_together("versions", len(request.versions))
        index = self._index
        wanted = [
            (wire.key_from_message(one.key), wire.wholes("generations", one.generations)) for one in request.versions
        ]
        work = [index.count_chunks(key, *generations) for key, generations in wanted]
        return index_pb2.CountChunksResponse(counts=await asyncio.gather(*work))

    async def CommitRecords(
        self, request: index_pb2.CommitRecordsRequest, context: _Context
    ) -> index_pb2.CommitRecordsResponse:
        """Make generations the visible ones, unless they are fenced."""
        _check_together("commits", len(request.commits))
        index = self._index
        wanted = [
            (
                wire.record_from_message(one.record),
                wire.whole("in_place_of", one.in_place_of) if one.HasField("in_place_of") else None,
            )
            for one in request.commits
        ]
        work = [index.commit_record(record, in_place_of=in_place_of) for record, in_place_of in wanted]
        return index_pb2.CommitRecordsResponse(committed=await asyncio.gather(*work))

    async def FenceDocument(
        self, request: index_pb2.FenceDocumentRequest, context: _Context
    ) -> index_pb2.FenceDocumentResponse:
        """Refuse commits up to a generation."""
        record = await self._index.fence(wire.key_from_message(request.key), _generation(request))
        return index_pb2.FenceDocumentResponse(record=wire.record_to_message(record) if record else None)

    async def GetFences(self, request: index_pb2.GetFencesRequest, context: _Context) -> index_pb2.GetFencesResponse:
        """Read how far documents are fenced."""
        fences = await self._index.get_fences([wire.key_from_message(key) for key in request.keys])
        return index_pb2.GetFencesResponse(
            fences=[
                index_pb2.IndexFence(key=wire.key_to_message(key), generation=generation)
                for key, generation in fences.items()
            ]
        )

    async def GetRecords(self, request: index_pb2.GetRecordsRequest, context: _Context) -> index_pb2.GetRecordsResponse:
        """Read records."""
        keys = [wire.key_from_message(key) for key in request.keys]
        return index_pb2.GetRecordsResponse(written=await self._index.get_records_written(keys))

    async def ListRecords(
        self, request: index_pb2.ListRecordsRequest, context: _Context
    ) -> index_pb2.ListRecordsResponse:
        """Read a page of a tenant's records, or of all."""
        records, following = await self._index.list_records(request.tenant or None, request.after, request.limit)
        return index_pb2.ListRecordsResponse(
            records=[wire.record_to_message(record) for record in records], next=following
        )

    async def GetChunks(self, request: index_pb2.GetChunksRequest, context: _Context) -> index_pb2.GetChunksResponse:
        """Read a run of chunks."""
        key = wire.key_from_message(request.key)
        chunks = await self._index.get_chunks(key, _generation(request), request.first, request.last)
        return index_pb2.GetChunksResponse(chunks=[wire.chunk_to_message(chunk) for chunk in chunks])

    async def ReadChunks(self, request: index_pb2.ReadChunksRequest, context: _Context) -> index_pb2.ReadChunksResponse:
        """Read chunks, wherever they are."""
        found = await self._index.read_chunks([wire.chunk_key_from_message(chunk) for chunk in request.chunks])
        return index_pb2.ReadChunksResponse(chunks=map(wire.chunk_to_message, found.values()))

    async def ReadHits(self, request: index_pb2.ReadHitsRequest, context: _Context) -> index_pb2.ReadHitsResponse:
        """Read chunks and their documents' records."""
        keys = [wire.chunk_key_from_message(chunk) for chunk in request.chunks]
        return index_pb2.ReadHitsResponse(written=await self._index.read_hits_written(keys))

    async def GetEmbeddings(
        self, request: index_pb2.GetEmbeddingsRequest, context: _Context
    ) -> index_pb2.GetEmbeddingsResponse:
        """Read the embeddings of chunks."""
        found = await self._index.get_embeddings([wire.chunk_key_from_message(chunk) for chunk in request.chunks])
        return index_pb2.GetEmbeddingsResponse(
            chunks=map(wire.chunk_key_to_message, found), embeddings=wire.embeddings_to_bytes(list(found.values()))
        )

    async def DeleteRecord(
        self, request: index_pb2.DeleteRecordRequest, context: _Context
    ) -> index_pb2.DeleteRecordResponse:
        """Make a document invisible."""
        deleted = await self._index.delete_record(wire.key_from_message(request.key), _generation(request))
        return index_pb2.DeleteRecordResponse(deleted=deleted)

    async def DropTombstone(
        self, request: index_pb2.DropTombstoneRequest, context: _Context
    ) -> index_pb2.DropTombstoneResponse:
        """Forget a tombstone."""
        await self._index.drop_tombstone(wire.key_from_message(request.key), _generation(request))
        return index_pb2.DropTombstoneResponse()

    async def DeleteChunks(
        self, request: index_pb2.DeleteChunksRequest, context: _Context
    ) -> index_pb2.DeleteChunksResponse:
        """Delete one generation, or all below one but those to keep."""
        count = await self._index.delete_chunks(
            wire.key_from_message(request.key),
            generation=_generation(request) if request.HasField("generation") else None,
            below=wire.whole("below", request.below) if request.HasField("below") else None,
            keep=wire.wholes("keep", request.keep),
        )
        return index_pb2.DeleteChunksResponse(count=count)

    async def SearchIndex(
        self, request: index_search_pb2.SearchIndexRequest, context: _Context
    ) -> index_search_pb2.SearchIndexResponse:
        """Find the nearest chunks, and the best by BM25."""
        return wire.answer_to_message(*await self._index.search_written(*wire.search_from_message(request)))

    async def GetIndexStats(
        self, request: index_pb2.GetIndexStatsRequest, context: _Context
    ) -> index_pb2.GetIndexStatsResponse:
        """Count what is in the index."""
        stats = await self._index.stats()
        return index_pb2.GetIndexStatsResponse(document_count=stats.document_count, chunk_count=stats.chunk_count)

    async def FlushIndex(self, request: index_pb2.FlushIndexRequest, context: _Context) -> index_pb2.FlushIndexResponse:
        """Have all that was written survive a loss of power."""
        await self._index.flush()
        return index_pb2.FlushIndexResponse()

    async def _open(self, *, dimension: int, fingerprint: str) -> None:
        async with self._opening:
            if self._opened is None:
                self._opened = await WrittenIndex.open(self._directory, dimension=dimension, fingerprint=fingerprint)
                self._opened.optimize_when_due()
            else:
                self._opened.check_made_by(dimension=dimension, fingerprint=fingerprint)

    @property
    def _index(self) -> WrittenIndex:
        if self._opened is None:
            raise IndexUnavailable(f"The index in {self._directory} is not open yet; open it first.")
        return self._opened


def _generation(
    request: index_pb2.FenceDocumentRequest
    | index_pb2.GetChunksRequest
    | index_pb2.DeleteRecordRequest
    | index_pb2.DropTombstoneRequest
    | index_pb2.DeleteChunksRequest,
) -> int:
    return wire.whole("generation", request.generation)


def _check_together(field: str, count: int) -> None:
    if count > TOGETHER_MAX:
        raise InvalidInput(field, f"{field} has {count} entries; the limit is {TOGETHER_MAX} a call.")


async def serve(settings: IndexOwnerSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with observing("index-owner", settings, settings.index_metrics_port, begins_traces=False) as observed:
        await _serve(settings, observed)


async def _serve(settings: IndexOwnerSettings, observed: Observed) -> None:
    stop = stop_signal()
    owner = IndexOwner(settings.data_dir)
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: index_pb2_grpc.add_IndexServiceServicer_to_server(owner, grpc_server),
        message_bytes_max=wire.MESSAGE_BYTES_MAX,
        calls_max=CALLS_MAX,
        interceptors=observed.interceptors,
        door=service_door(settings.index_token.get_secret_value() if settings.index_token else None),
    )
    observed.calls.metrics.tell_serving(lambda: server.is_serving)
    metrics = IndexOwnerMetrics(observed.registry)

    async def measure() -> None:
        metrics.measured(
            size_bytes=await asyncio.to_thread(index_bytes, settings.data_dir),
            free_bytes=(await asyncio.to_thread(shutil.disk_usage, settings.data_dir)).free,
            optimizing_segments=int(owner.is_optimizing),
        )

    try:
        if settings.index_token:
            # For commands that work on the directory while it is served.
            await asyncio.to_thread(write_owner_token, settings.data_dir, settings.index_token.get_secret_value())
        await owner.open_existing()
        await server.start(settings.index_host, settings.index_port)
        await server.set_serving(serving=True)
        logger.info("serving %s on %s:%d", settings.data_dir, settings.index_host, server.port)
        async with measuring(measure):
            await stop.wait()
        await server.stop()
    finally:
        await owner.close()


def main() -> int:
    """Run the index owner; give the exit code."""
    return run("index-owner", IndexOwnerSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
