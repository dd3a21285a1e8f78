"""What goes wrong on the way to an index, told as our own errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc.aio import AioRpcError, Metadata
from mambasearch.v1 import index_pb2, index_search_pb2
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException

from encoder.errors import IndexUnavailable, InvalidInput, MambaSearchError, Overloaded, StorageFull, TimedOut
from ingest.index import wire
from ingest.index.interface import DocumentKey, IndexedChunk, Scope, SparseVector, StoredChunk
from ingest.index.records import Change, committing, fencing
from ingest.index.server import ServerIndex
from tests.indexes import make_record, search_dense

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


KEY = DocumentKey("default", "d")


def make_chunk() -> IndexedChunk:
    stored = StoredChunk(*KEY, 1, 0, 0, 4, 1, 1, (), 1, "text")
    sparse = SparseVector(np.array([1], dtype=np.uint32), np.ones(1, dtype=np.float32))
    return IndexedChunk(stored, np.ones(2, dtype=np.float32), sparse)


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

    for method in ("query_points", "upsert", "delete", "count", "retrieve", "scroll"):
        monkeypatch.setattr(index._client, method, fail)
    for call in (
        search_dense(index, np.ones(2, dtype=np.float32), 1, Scope()),
        index.upsert_chunks([make_chunk()]),
        index.commit_record(make_record("d")),
        index.fence(KEY, 1),
        index.get_records([KEY]),
        index.get_fences([KEY]),
        index.list_records("default", "", 5),
        index.count_chunks(KEY, 1),
        index.delete_record(KEY, 2),
        index.drop_tombstone(KEY, 2),
        index.delete_chunks(KEY, below=2),
    ):
        with pytest.raises(kind):
            await call


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

    await index.upsert_chunks([make_chunk()])
    for method in ("delete", "upsert"):
        monkeypatch.setattr(index._client, method, acknowledge)
    for write in (index.delete_chunks(KEY, below=2), index.commit_record(make_record("d"))):
        with pytest.raises(TimedOut, match="did not apply it in time"):
            await write


class Rival:
    """Another process that writes a document's record whenever this one is about to."""

    def __init__(self, index: ServerIndex, monkeypatch: pytest.MonkeyPatch, *changes: Change) -> None:
        self._upsert = index._client.upsert
        self._index = index
        self._changes = list(changes)
        self._writing = False
        monkeypatch.setattr(index._client, "upsert", self.upsert)

    async def upsert(self, *arguments: Any, **options: Any) -> models.UpdateResult:
        if self._changes and not self._writing:
            self._writing = True
            await self._index._change(KEY, self._changes.pop(0))
            self._writing = False
        return await self._upsert(*arguments, **options)


async def test_a_fence_that_comes_between_stops_a_commit(index: ServerIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    await index.commit_record(make_record("d", generation=1))
    Rival(index, monkeypatch, fencing(2))
    assert not await index.commit_record(make_record("d", generation=2))
    assert await index.get_records([KEY]) == {KEY: make_record("d", generation=1)}
    assert await index.get_fences([KEY]) == {KEY: 2}


async def test_the_first_of_two_new_records_is_not_lost(index: ServerIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    Rival(index, monkeypatch, committing(make_record("d", generation=2)))
    assert not await index.commit_record(make_record("d", generation=1))
    assert await index.get_records([KEY]) == {KEY: make_record("d", generation=2)}
    Rival(index, monkeypatch, committing(make_record("d", generation=3)))
    assert await index.fence(KEY, 5) == make_record("d", generation=3)
    Rival(index, monkeypatch, committing(make_record("d", generation=7)))
    assert not await index.delete_record(KEY, 6)
    assert await index.get_records([KEY]) == {KEY: make_record("d", generation=7)}


async def test_new_metadata_never_bring_a_deleted_document_back(
    index: ServerIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process deletes it, and forgets the tombstone, between the reading and the writing."""
    await index.commit_record(make_record("d", generation=4))
    upsert = index._client.upsert

    async def late(*arguments: Any, **options: Any) -> models.UpdateResult:
        monkeypatch.setattr(index._client, "upsert", upsert)
        await index.delete_record(KEY, 5)
        await index.drop_tombstone(KEY, 5)
        return await upsert(*arguments, **options)

    monkeypatch.setattr(index._client, "upsert", late)
    assert not await index.commit_record(make_record("d", generation=4, metadata={}), in_place_of=4)
    assert await index.get_fences([KEY]) == {}


async def test_rivals_without_end_are_told_of(index: ServerIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    Rival(index, monkeypatch, *(fencing(generation) for generation in range(1, 100)))
    with pytest.raises(Overloaded, match="Others keep writing the record of d of default"):
        await index.fence(KEY, 1000)


@pytest.mark.parametrize(
    "message",
    [
        index_pb2.UpsertChunksRequest(chunks=[index_pb2.IndexChunk()], embeddings=b"1234"),
        index_pb2.UpsertChunksRequest(
            chunks=[index_pb2.IndexChunk()], embeddings=b"123", sparse=[index_search_pb2.TermWeights()]
        ),
        index_pb2.UpsertChunksRequest(
            chunks=[index_pb2.IndexChunk()], embeddings=b"1234", sparse=[index_search_pb2.TermWeights(indices=[1])]
        ),
    ],
)
def test_messages_that_disagree_with_themselves(message: index_pb2.UpsertChunksRequest) -> None:
    with pytest.raises(InvalidInput):
        wire.upsert_from_message(message)


@pytest.mark.parametrize("name", ["{{7*7}}", "", "Kind", "a.b", "x" * 65])
def test_names_that_no_metadata_have_reach_no_engine(name: str) -> None:
    """In an engine's path they would mean something else, or nothing."""
    record = wire.record_to_message(make_record("d"))
    record.metadata[name].number = 1.5
    with pytest.raises(InvalidInput, match="small letters"):
        wire.record_from_message(record)
    chunks = wire.upsert_to_message([make_chunk()])
    chunks.fields_of[0] = 1
    chunks.fields.add().ranges[name.replace("x", "xx")] = 1.5
    with pytest.raises(InvalidInput, match=r"fields\.ranges"):
        wire.upsert_from_message(chunks)


def test_term_weights_travel_exactly() -> None:
    sparse = SparseVector(np.array([0, 2**32 - 1], dtype=np.uint32), np.array([0.1, 2.5], dtype=np.float32))
    found = wire.sparse_from_message(wire.sparse_to_message(sparse))
    assert found.indices.tolist() == sparse.indices.tolist()
    assert found.values.tolist() == sparse.values.tolist()
