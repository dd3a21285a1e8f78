"""What goes wrong on the way to an index, told as our own errors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
from grpc.aio import AioRpcError, Metadata
from mambasearch.v1 import index_pb2
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException

from encoder.errors import IndexUnavailable, InvalidInput, MambaSearchError, Overloaded, StorageFull, TimedOut
from ingest.index import wire
from ingest.index.interface import SparseVector
from ingest.index.server import ServerIndex

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.fixture
async def index() -> AsyncIterator[ServerIndex]:
    client = AsyncQdrantClient(location=":memory:")
    opened = await ServerIndex.open(client, collection="c", dimension=2, fingerprint="f")
    yield opened
    await opened.close()


def rpc_error(code: grpc.StatusCode, details: str) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (rpc_error(grpc.StatusCode.UNAVAILABLE, "connection refused"), IndexUnavailable),
        (rpc_error(grpc.StatusCode.UNAUTHENTICATED, "no key"), IndexUnavailable),
        (rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "late"), TimedOut),
        (rpc_error(grpc.StatusCode.INTERNAL, "Service internal error: No space left on device: WAL"), StorageFull),
        (ResponseHandlingException(OSError("connection refused")), IndexUnavailable),
        (ConnectionRefusedError("connection refused"), IndexUnavailable),
    ],
)
async def test_errors_of_a_server(
    index: ServerIndex, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[MambaSearchError]
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    for method in ("query_points", "upsert", "delete", "count", "retrieve"):
        monkeypatch.setattr(index._client, method, fail)
    with pytest.raises(kind):
        await index.search_dense(np.ones(2, dtype=np.float32), 1)
    with pytest.raises(kind):
        await index.delete_document("d")
    with pytest.raises(kind):
        await index.count_chunks("d", 1)
    with pytest.raises(kind):
        await index.get_records(["d"])


async def test_a_server_that_is_full_says_when_to_come_back(
    index: ServerIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ResourceExhaustedResponse("too many requests", retry_after_s=7)

    monkeypatch.setattr(index._client, "count", fail)
    with pytest.raises(Overloaded) as caught:
        await index.stats()
    assert caught.value.retry_after_s == 7


async def test_a_write_that_was_not_applied_in_time(index: ServerIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    async def acknowledge(*_: object, **__: object) -> models.UpdateResult:
        return models.UpdateResult(operation_id=1, status=models.UpdateStatus.ACKNOWLEDGED)

    monkeypatch.setattr(index._client, "delete", acknowledge)
    with pytest.raises(TimedOut, match="did not apply it in time"):
        await index.delete_document("d")


@pytest.mark.parametrize(
    "message",
    [
        index_pb2.UpsertChunksRequest(chunks=[index_pb2.IndexChunk()], embeddings=b"1234"),
        index_pb2.UpsertChunksRequest(
            chunks=[index_pb2.IndexChunk()], embeddings=b"123", sparse=[index_pb2.TermWeights()]
        ),
        index_pb2.UpsertChunksRequest(
            chunks=[index_pb2.IndexChunk()], embeddings=b"1234", sparse=[index_pb2.TermWeights(indices=[1])]
        ),
    ],
)
def test_messages_that_disagree_with_themselves(message: index_pb2.UpsertChunksRequest) -> None:
    with pytest.raises(InvalidInput):
        wire.upsert_from_message(message)


def test_term_weights_travel_exactly() -> None:
    sparse = SparseVector(np.array([0, 2**32 - 1], dtype=np.uint32), np.array([0.1, 2.5], dtype=np.float32))
    found = wire.sparse_from_message(wire.sparse_to_message(sparse))
    assert found.indices.tolist() == sparse.indices.tolist()
    assert found.values.tolist() == sparse.values.tolist()
