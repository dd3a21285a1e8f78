"""Qdrant's gRPC services in front of qdrant-client's local mode: what travels to a server really travels.

Only the calls that the project makes. The answers are local mode's, filters by columns (``field_columns``), so it
proves the way there, not a server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, payload_to_grpc
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server
from qdrant_client.grpc.qdrant_pb2_grpc import QdrantServicer, add_QdrantServicer_to_server
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.models import AliasDescription, FilterSelector, Record

from tests.field_columns import FieldColumns


class Root(QdrantServicer):
    def __init__(self, version: str) -> None:
        self._version = version

    async def HealthCheck(self, request: Any, context: Any) -> qdrant.HealthCheckReply:  # noqa: N802
        return qdrant.HealthCheckReply(title="qdrant - vector search engine", version=self._version)


class Collections(CollectionsServicer):
    def __init__(
        self, client: AsyncQdrantClient, columns: dict[str, FieldColumns], statuses: Sequence[qdrant.CollectionStatus]
    ) -> None:
        self._client = client
        self._columns = columns
        self._made: dict[str, qdrant.CreateCollection] = {}
        self._statuses = list(statuses)

    async def CollectionExists(self, request: Any, context: Any) -> qdrant.CollectionExistsResponse:  # noqa: N802
        exists = await self._client.collection_exists(request.collection_name)
        return qdrant.CollectionExistsResponse(result=qdrant.CollectionExists(exists=exists))

    async def Create(self, request: qdrant.CreateCollection, context: Any) -> qdrant.CollectionOperationResponse:  # noqa: N802
        self._made[request.collection_name] = request
        result = await self._client.create_collection(
            request.collection_name,
            vectors_config=GrpcToRest.convert_vectors_config(request.vectors_config),
            sparse_vectors_config=GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config),
        )
        assert isinstance(self._client._client, AsyncQdrantLocal)
        self._columns[request.collection_name] = FieldColumns(self._client._client.collections[request.collection_name])
        return qdrant.CollectionOperationResponse(result=result)

    async def Get(self, request: Any, context: Any) -> qdrant.GetCollectionInfoResponse:  # noqa: N802
        aliases = {alias.alias_name: alias.collection_name for alias in (await self._client.get_aliases()).aliases}
        name = aliases.get(request.collection_name, request.collection_name)
        made = self._made[name]
        info = qdrant.CollectionInfo(
            status=self._statuses.pop(0) if self._statuses else qdrant.CollectionStatus.Green,
            optimizer_status=qdrant.OptimizerStatus(ok=True),
            segments_count=1,
            config=qdrant.CollectionConfig(
                params=qdrant.CollectionParams(
                    shard_number=made.shard_number or 1,
                    replication_factor=made.replication_factor or 1,
                    vectors_config=made.vectors_config,
                    sparse_vectors_config=made.sparse_vectors_config,
                ),
                hnsw_config=qdrant.HnswConfigDiff(m=made.hnsw_config.m, ef_construct=100, full_scan_threshold=10_000),
                optimizer_config=qdrant.OptimizersConfigDiff(
                    deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
                ),
                wal_config=qdrant.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
                metadata=made.metadata,
            ),
        )
        return qdrant.GetCollectionInfoResponse(result=info)

    async def Update(self, request: qdrant.UpdateCollection, context: Any) -> qdrant.CollectionOperationResponse:  # noqa: N802
        self._made[request.collection_name].hnsw_config.MergeFrom(request.hnsw_config)
        for name, value in request.metadata.items():
            self._made[request.collection_name].metadata[name].CopyFrom(value)
        return qdrant.CollectionOperationResponse(result=True)

    async def UpdateAliases(self, request: qdrant.ChangeAliases, context: Any) -> qdrant.CollectionOperationResponse:  # noqa: N802
        await self._client.update_collection_aliases(
            [GrpcToRest.convert_alias_operations(action) for action in request.actions]
        )
        return qdrant.CollectionOperationResponse(result=True)

    async def ListAliases(self, request: Any, context: Any) -> qdrant.ListAliasesResponse:  # noqa: N802
        return _aliases((await self._client.get_aliases()).aliases)

    async def ListCollectionAliases(self, request: Any, context: Any) -> qdrant.ListAliasesResponse:  # noqa: N802
        return _aliases((await self._client.get_collection_aliases(request.collection_name)).aliases)

    async def Delete(self, request: Any, context: Any) -> qdrant.CollectionOperationResponse:  # noqa: N802
        await self._client.delete_collection(request.collection_name)
        return qdrant.CollectionOperationResponse(result=True)


class Points(PointsServicer):
    def __init__(self, client: AsyncQdrantClient, columns: dict[str, FieldColumns], missed: int) -> None:
        self._client = client
        self._columns = columns
        self._missed = missed

    async def CreateFieldIndex(self, request: Any, context: Any) -> qdrant.PointsOperationResponse:  # noqa: N802
        assert request.wait
        return _done()

    async def Upsert(self, request: qdrant.UpsertPoints, context: Any) -> qdrant.PointsOperationResponse:  # noqa: N802
        assert request.wait
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        await self._client.upsert(
            request.collection_name,
            points,
            update_filter=GrpcToRest.convert_filter(request.update_filter)
            if request.HasField("update_filter")
            else None,
            update_mode=GrpcToRest.convert_update_mode(request.update_mode)
            if request.HasField("update_mode")
            else None,
        )
        self._columns[request.collection_name].written(point.id for point in points)
        return _done()

    async def SetPayload(self, request: qdrant.SetPayloadPoints, context: Any) -> qdrant.PointsOperationResponse:  # noqa: N802
        assert request.wait
        chosen = GrpcToRest.convert_filter(request.points_selector.filter)
        payload = GrpcToRest.convert_payload(request.payload)
        # Not by the filter itself: local mode would walk through all payloads.
        offset: Any = None
        while True:
            found, offset = await self._client.scroll(
                request.collection_name, chosen, limit=1000, offset=offset, with_payload=False
            )
            ids = [point.id for point in found]
            if ids:
                await self._client.set_payload(request.collection_name, payload, ids)
                self._columns[request.collection_name].written(ids)
            if offset is None:
                return _done()

    async def Delete(self, request: qdrant.DeletePoints, context: Any) -> qdrant.PointsOperationResponse:  # noqa: N802
        assert request.wait
        chosen: Any
        if request.points.HasField("filter"):
            chosen = FilterSelector(filter=GrpcToRest.convert_filter(request.points.filter))
        else:
            chosen = [GrpcToRest.convert_point_id(point_id) for point_id in request.points.points.ids]
        await self._client.delete(request.collection_name, chosen)
        self._columns[request.collection_name].deleted()
        return _done()

    async def Count(self, request: qdrant.CountPoints, context: Any) -> qdrant.CountResponse:  # noqa: N802
        assert request.exact
        found = await self._client.count(request.collection_name, GrpcToRest.convert_filter(request.filter))
        return qdrant.CountResponse(result=qdrant.CountResult(count=found.count))

    async def Get(self, request: qdrant.GetPoints, context: Any) -> qdrant.GetResponse:  # noqa: N802
        ids = [GrpcToRest.convert_point_id(point_id) for point_id in request.ids]
        names = list(request.with_vectors.include.names)
        chosen = GrpcToRest.convert_with_payload_selector(request.with_payload)
        found = await self._client.retrieve(request.collection_name, ids, with_payload=chosen, with_vectors=names)
        return qdrant.GetResponse(result=[_retrieved(point) for point in found])

    async def Scroll(self, request: qdrant.ScrollPoints, context: Any) -> qdrant.ScrollResponse:  # noqa: N802
        found, following = await self._client.scroll(
            request.collection_name,
            GrpcToRest.convert_filter(request.filter),
            limit=request.limit,
            offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
        )
        next_page_offset = qdrant.PointId(uuid=str(following)) if following else None
        return qdrant.ScrollResponse(result=[_retrieved(point) for point in found], next_page_offset=next_page_offset)

    async def Query(self, request: qdrant.QueryPoints, context: Any) -> qdrant.QueryResponse:  # noqa: N802
        found = await self._client.query_points(
            request.collection_name,
            query=GrpcToRest.convert_query(request.query),
            using=request.using,
            query_filter=GrpcToRest.convert_filter(request.filter),
            search_params=GrpcToRest.convert_search_params(request.params) if request.params.HasField("idf") else None,
            limit=request.limit,
            with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
            with_vectors=list(request.with_vectors.include.names),
        )
        hits = found.points if request.params.exact else found.points[self._missed :]
        return qdrant.QueryResponse(result=[RestToGrpc.convert_scored_point(hit) for hit in hits])


def _aliases(found: list[AliasDescription]) -> qdrant.ListAliasesResponse:
    return qdrant.ListAliasesResponse(aliases=[RestToGrpc.convert_alias_description(alias) for alias in found])


def _retrieved(point: Record) -> qdrant.RetrievedPoint:
    vectors = RestToGrpc.convert_vector_struct_output(point.vector) if point.vector else None
    return qdrant.RetrievedPoint(
        id=qdrant.PointId(uuid=str(point.id)), payload=payload_to_grpc(point.payload or {}), vectors=vectors
    )


def _done() -> qdrant.PointsOperationResponse:
    return qdrant.PointsOperationResponse(
        result=qdrant.UpdateResult(operation_id=1, status=qdrant.UpdateStatus.Completed)
    )


@asynccontextmanager
async def qdrant_over_grpc(
    version: str = "1.20.0", *, missed: int = 0, statuses: Sequence[qdrant.CollectionStatus] = ()
) -> AsyncIterator[str]:
    """Serve; give the address as a user would, with the REST port that comes before the gRPC port.

    A search that need not be exact misses so many of the best hits; ``statuses`` are told before a collection is green.
    """
    client = AsyncQdrantClient(location=":memory:")
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    add_QdrantServicer_to_server(Root(version), server)
    columns: dict[str, FieldColumns] = {}
    add_CollectionsServicer_to_server(Collections(client, columns, statuses), server)
    add_PointsServicer_to_server(Points(client, columns, missed), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port - 1}"
    finally:
        await server.stop(None)
        await client.close()
