"""Every implementation of the index, opened for tests, and what is put into them."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from mambasearch.v1 import index_pb2_grpc
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient

from ingest.index import wire
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import (
    DEFAULT_TENANT,
    DocumentKey,
    DocumentRecord,
    IndexedChunk,
    IndexHit,
    MetadataValue,
    Scope,
    SparseVector,
    StoredChunk,
    VectorIndex,
)
from ingest.index.memory import MemoryIndex
from ingest.index.remote import RemoteIndex
from ingest.index.server import ServerIndex
from ingest.sparse import sparse_passage
from services.grpc_server import GrpcServer
from services.index_owner import SERVICE, IndexOwner
from tests.qdrant_over_grpc import qdrant_over_grpc

DIMENSION = 8
FINGERPRINT = "model=m chunker=c"
SERVER_URL = os.environ.get("MAMBASEARCH_QDRANT_URL")  # noqa: TID251 - tests only
NO_SERVER = pytest.mark.skipif(SERVER_URL is None, reason="MAMBASEARCH_QDRANT_URL names no Qdrant server")

KINDS = ["embedded", "memory", "remote", "local_mode", "grpc", pytest.param("server", marks=NO_SERVER)]
EVERYWHERE = Scope()


@asynccontextmanager
async def running_owner(tmp_path: Path) -> AsyncIterator[str]:
    owner = IndexOwner(tmp_path / "owner")
    server = GrpcServer(
        SERVICE,
        lambda grpc_server: index_pb2_grpc.add_IndexServiceServicer_to_server(owner, grpc_server),
        message_bytes_max=wire.MESSAGE_BYTES_MAX,
        calls_max=16,
    )
    await server.start("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop()
        await owner.close()


@asynccontextmanager
async def opened_index(kind: str, tmp_path: Path) -> AsyncIterator[VectorIndex]:
    async with AsyncExitStack() as stack:
        opened: VectorIndex
        match kind:
            case "embedded":
                opened = await EmbeddedIndex.open(tmp_path / "data", dimension=DIMENSION, fingerprint=FINGERPRINT)
            case "memory":
                opened = MemoryIndex(dimension=DIMENSION, fingerprint=FINGERPRINT)
            case "remote":
                target = await stack.enter_async_context(running_owner(tmp_path))
                opened = await RemoteIndex.connect(target, dimension=DIMENSION, fingerprint=FINGERPRINT)
            case "local_mode":
                client = AsyncQdrantClient(location=":memory:")
                opened = await ServerIndex.open(client, collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)
            case "grpc":
                address = await stack.enter_async_context(qdrant_over_grpc())
                opened = await ServerIndex.open(address, collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)
            case _:
                assert SERVER_URL
                collection = f"test-{uuid.uuid4()}"
                opened = await ServerIndex.open(
                    SERVER_URL, collection=collection, dimension=DIMENSION, fingerprint=FINGERPRINT
                )
                stack.push_async_callback(opened._client.delete_collection, opened._collection)
        stack.push_async_callback(opened.close)
        yield opened


def key_of(document_id: str, tenant: str = DEFAULT_TENANT) -> DocumentKey:
    return DocumentKey(tenant, document_id)


def make_chunk(
    document_id: str,
    chunk_index: int,
    text: str,
    *,
    generation: int = 1,
    direction: int | None = None,
    tenant: str = DEFAULT_TENANT,
) -> IndexedChunk:
    """A chunk whose embedding points along one axis, by its index unless said otherwise."""
    embedding = np.zeros(DIMENSION, dtype=np.float32)
    embedding[(chunk_index if direction is None else direction) % DIMENSION] = 1
    stored = StoredChunk(
        tenant=tenant,
        document_id=document_id,
        generation=generation,
        chunk_index=chunk_index,
        char_start=10 * chunk_index,
        char_end=10 * chunk_index + 9,
        line_start=chunk_index + 1,
        line_end=chunk_index + 2,
        headings=("One", "Two / é")[: chunk_index % 3],
        token_count=3,
        text=text,
    )
    return IndexedChunk(stored, embedding, sparse_passage(text))


METADATA: Mapping[str, MetadataValue] = {
    "text": "2026-01-02T03:04:05+00:00",
    "empty": "",
    "whole": 2**62,
    "number": 1.0,
    "small": -1e-300,
    "yes": True,
    "no": False,
    "time": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "texts": ("a", "é"),
    "none": (),
}


def make_record(
    document_id: str,
    *,
    generation: int = 1,
    chunk_count: int = 1,
    tenant: str = DEFAULT_TENANT,
    metadata: Mapping[str, MetadataValue] = METADATA,
) -> DocumentRecord:
    return DocumentRecord(
        tenant=tenant,
        document_id=document_id,
        title=f"Title of {document_id}",
        source="a/b.txt",
        metadata=metadata,
        generation=generation,
        chunk_count=chunk_count,
        token_count=2**33,
        char_count=2**34,
        content_hash="ab" * 32,
        metadata_hash="cd" * 32,
        ingested_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    )


def axis(direction: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    embedding = np.zeros(DIMENSION, dtype=np.float32)
    embedding[direction] = 1
    return embedding


async def search_dense(index: VectorIndex, embedding: NDArray[np.float32], limit: int, scope: Scope) -> list[IndexHit]:
    """The nearest chunks alone."""
    answer = await index.search(embedding, None, limit, scope)
    assert not answer.sparse
    return list(answer.dense)


async def search_sparse(index: VectorIndex, sparse: SparseVector, limit: int, scope: Scope) -> list[IndexHit]:
    """The best by BM25 alone."""
    answer = await index.search(None, sparse, limit, scope)
    assert not answer.dense
    return list(answer.sparse)


def places(hits: list[IndexHit]) -> list[tuple[str, int, int]]:
    return [(hit.chunk.document_id, hit.chunk.generation, hit.chunk.chunk_index) for hit in hits]


STRANGE_IDS = ["a", "a/b:1", 'quote"\\', "é∂ 日本", "x" * 512, "chunk/1/0/a", "' OR 1=1", "{}"]
