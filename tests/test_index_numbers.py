"""Numbers that no engine can hold are refused by the index owner, by name: the protocol's go twice as far."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mambasearch.v1 import index_pb2, index_scope_pb2, index_search_pb2

from encoder.errors import InvalidInput
from ingest.index.wire import WHOLE_MAX
from services.index_owner import IndexOwner

KEY = index_pb2.IndexDocumentKey(tenant="t", document_id="d")
OVER = WHOLE_MAX + 1
SCOPE = index_scope_pb2.ScopedDocuments(
    documents=[index_scope_pb2.ScopedDocument(document_id="d", generations=[1, OVER])]
)
WEIGHTS = index_search_pb2.TermWeights(indices=[1], values=[1.0])


def commit(in_place_of: int | None = None, **fields: Any) -> index_pb2.CommitRecordsRequest:
    given = {"key": KEY, "generation": 1, "chunk_count": 1} | fields
    made = index_pb2.IndexCommit(record=index_pb2.IndexRecord(**given), in_place_of=in_place_of)
    return index_pb2.CommitRecordsRequest(commits=[made])


def upsert(**fields: int) -> index_pb2.UpsertChunksRequest:
    chunk = index_pb2.IndexChunk(key=KEY, **({"generation": 1} | fields))
    return index_pb2.UpsertChunksRequest(chunks=[chunk], embeddings=bytes(4), sparse=[WEIGHTS], fields_of=[0])


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[IndexOwner]:
    made = IndexOwner(tmp_path)
    await made.OpenIndex(index_pb2.OpenIndexRequest(dimension=1, fingerprint="f"), None)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        (
            "CountChunks",
            index_pb2.CountChunksRequest(versions=[index_pb2.IndexVersions(key=KEY, generations=[OVER])]),
            "generations",
        ),
        ("FenceDocument", index_pb2.FenceDocumentRequest(key=KEY, generation=OVER), "generation"),
        ("GetChunks", index_pb2.GetChunksRequest(key=KEY, generation=OVER, last=1), "generation"),
        ("DeleteRecord", index_pb2.DeleteRecordRequest(key=KEY, generation=OVER), "generation"),
        ("DropTombstone", index_pb2.DropTombstoneRequest(key=KEY, generation=OVER), "generation"),
        ("DeleteChunks", index_pb2.DeleteChunksRequest(key=KEY, generation=OVER), "generation"),
        ("DeleteChunks", index_pb2.DeleteChunksRequest(key=KEY, below=OVER), "below"),
        ("DeleteChunks", index_pb2.DeleteChunksRequest(key=KEY, below=3, keep=[1, OVER]), "keep"),
        (
            "ReadChunks",
            index_pb2.ReadChunksRequest(chunks=[index_pb2.IndexChunkKey(key=KEY, generation=OVER)]),
            "generation",
        ),
        (
            "ReadHits",
            index_pb2.ReadHitsRequest(chunks=[index_pb2.IndexChunkKey(key=KEY, generation=OVER)]),
            "generation",
        ),
        (
            "SearchIndex",
            index_search_pb2.SearchIndexRequest(
                sparse=WEIGHTS, limit=5, scope=index_scope_pb2.IndexScope(tenant="t", only=SCOPE)
            ),
            "generations",
        ),
        ("CommitRecords", commit(generation=OVER), "generation"),
        ("CommitRecords", commit(in_place_of=OVER), "in_place_of"),
        ("CommitRecords", commit(token_count=OVER), "token_count"),
        ("CommitRecords", commit(char_count=OVER), "char_count"),
        ("CommitRecords", commit(earlier=[index_pb2.IndexSegment(generation=OVER)]), "earlier"),
        ("CommitRecords", commit(ingested_at=Timestamp(seconds=WHOLE_MAX)), "ingested_at"),
        ("UpsertChunks", upsert(generation=OVER), "generation"),
        ("UpsertChunks", upsert(char_start=OVER), "char_start"),
        ("UpsertChunks", upsert(char_end=OVER), "char_end"),
        ("UpsertChunks", upsert(line_start=OVER), "line_start"),
        ("UpsertChunks", upsert(line_end=OVER), "line_end"),
    ],
)
async def test_a_number_that_is_too_large_is_refused(owner: IndexOwner, method: str, request_: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await getattr(owner, method)(request_, None)
    assert refusal.value.field == field


async def test_the_largest_is_held(owner: IndexOwner) -> None:
    await owner.UpsertChunks(upsert(generation=WHOLE_MAX, char_end=WHOLE_MAX), None)
    versions = [index_pb2.IndexVersions(key=KEY, generations=[WHOLE_MAX])]
    counted = await owner.CountChunks(index_pb2.CountChunksRequest(versions=versions), None)
    assert list(counted.counts) == [1]
    found = await owner.GetChunks(index_pb2.GetChunksRequest(key=KEY, generation=WHOLE_MAX), None)
    assert [chunk.char_end for chunk in found.chunks] == [WHOLE_MAX]
