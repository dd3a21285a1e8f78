"""The index owner as a process: health, who may open the directory, restarts, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from encoder.errors import FingerprintMismatch, IndexUnavailable, InUse
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import DEFAULT_TENANT, IndexedChunk, StoredChunk
from ingest.index.remote import RemoteIndex
from ingest.sparse import sparse_passage, sparse_query
from services.index_owner import SERVICE
from tests.indexes import EVERYWHERE, search_sparse
from tests.processes import free_port

DIMENSION = 4
FINGERPRINT = "model=m chunker=c"
ROOT = Path(__file__).parent.parent


async def start(data_dir: Path, port: int) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAMBASEARCH_")}  # noqa: TID251
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.index_owner",
        cwd=ROOT,
        env=environment | {"MAMBASEARCH_DATA_DIR": str(data_dir), "MAMBASEARCH_INDEX_PORT": str(port)},
        stderr=asyncio.subprocess.PIPE,
    )


async def wait_until_serving(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            request = health_pb2.HealthCheckRequest(service=name)
            answer = await stub.Check(request, timeout=30, wait_for_ready=True)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def running(data_dir: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A serving owner, ended with SIGTERM: at once, without a complaint."""
    process = await start(data_dir, port)
    try:
        await wait_until_serving(port)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        _, messages = await process.communicate()
    assert process.returncode == 0, messages.decode()
    assert b"Traceback" not in messages


async def connect(port: int, fingerprint: str = FINGERPRINT) -> RemoteIndex:
    return await RemoteIndex.connect(f"127.0.0.1:{port}", dimension=DIMENSION, fingerprint=fingerprint)


def make_chunk(number: int) -> IndexedChunk:
    text = f"word{number}"
    chunk = StoredChunk(DEFAULT_TENANT, "d", 1, number, 0, 5, 1, 1, (), 1, text)
    return IndexedChunk(chunk, np.ones(DIMENSION, dtype=np.float32), sparse_passage(text))


async def test_clients_share_the_index_and_the_directory_is_theirs_alone(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, port):
        writer, reader = await connect(port), await connect(port)
        await writer.upsert_chunks([make_chunk(number) for number in range(10)])
        (hit,) = await search_sparse(reader, sparse_query("word7"), 5, EVERYWHERE)
        assert hit.chunk.chunk_index == 7
        with pytest.raises(FingerprintMismatch, match="model=other"):
            await connect(port, "model=other")
        with pytest.raises(InUse, match="held by another process"):
            await EmbeddedIndex.open(tmp_path, dimension=DIMENSION, fingerprint=FINGERPRINT)
        second = await start(tmp_path, free_port())
        _, messages = await second.communicate()
        assert second.returncode == 73
        assert messages.decode().count("\n") == 1
        assert "held by another process" in messages.decode()
        await writer.close()
        await reader.close()


async def test_a_client_finds_a_restarted_owner_with_all_that_was_written(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, port):
        index = await connect(port)
        await index.upsert_chunks([make_chunk(0)])
    with pytest.raises(IndexUnavailable, match=rf"index owner at 127\.0\.0\.1:{port} cannot be reached"):
        await index.stats()
    async with running(tmp_path, port):
        for _ in range(100):
            try:
                stats = await index.stats()
                break
            except IndexUnavailable:
                await asyncio.sleep(0.1)
        assert stats.chunk_count == 1
        await index.close()


async def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path / "one", port):
        second = await start(tmp_path / "two", port)
        _, messages = await second.communicate()
        assert second.returncode == 73
        assert f"Port {port} on 127.0.0.1 is in use" in messages.decode()
        assert "Traceback" not in messages.decode()
