"""Opening an index: which one, whose it is, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client.grpc.qdrant_pb2_grpc import add_QdrantServicer_to_server

from encoder.errors import FingerprintMismatch, IndexUnavailable, InvalidInput
from ingest.index.embedded import EmbeddedIndex
from ingest.index.opening import open_index
from ingest.index.remote import RemoteIndex
from ingest.index.server import ServerIndex
from ingest.index.server_address import QdrantServer
from ingest.sparse import sparse_query
from tests.indexes import (
    DIMENSION,
    EVERYWHERE,
    FINGERPRINT,
    key_of,
    make_chunk,
    make_record,
    places,
    running_owner,
    search_sparse,
)
from tests.qdrant_over_grpc import Root, qdrant_over_grpc

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.fixture
async def owner_target(tmp_path: Path) -> AsyncIterator[str]:
    async with running_owner(tmp_path) as target:
        yield target


async def test_remote_refuses_another_fingerprint(owner_target: str) -> None:
    index = await RemoteIndex.connect(owner_target, dimension=DIMENSION, fingerprint=FINGERPRINT)
    with pytest.raises(FingerprintMismatch, match=r"model=m chunker=c.*model=other"):
        await RemoteIndex.connect(owner_target, dimension=DIMENSION, fingerprint="model=other")
    with pytest.raises(FingerprintMismatch, match=r"dimension 8.*dimension 9"):
        await RemoteIndex.connect(owner_target, dimension=9, fingerprint=FINGERPRINT)
    await index.close()


async def test_remote_says_that_the_owner_is_away() -> None:
    with pytest.raises(IndexUnavailable, match=r"index owner at 127\.0\.0\.1:1 cannot be reached"):
        await RemoteIndex.connect("127.0.0.1:1", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_owner_asks_to_be_opened_first(owner_target: str) -> None:
    index = RemoteIndex(owner_target, dimension=DIMENSION, fingerprint=FINGERPRINT)
    with pytest.raises(IndexUnavailable, match="not open yet"):
        await index.stats()
    await index.close()


async def test_collection_is_kept_on_disk_and_bound_to_its_fingerprint(tmp_path: Path) -> None:
    async def open_local(fingerprint: str) -> ServerIndex:
        client = AsyncQdrantClient(path=str(tmp_path / "local"))
        return await ServerIndex.open(client, collection="c", dimension=DIMENSION, fingerprint=fingerprint)

    index = await open_local(FINGERPRINT)
    await index.upsert_chunks([make_chunk("d", 0, "kept")])
    await index.commit_record(make_record("d"))
    await index.close()
    with pytest.raises(FingerprintMismatch, match=r"Collection c .*model=m chunker=c.*model=other"):
        await open_local("model=other")
    index = await open_local(FINGERPRINT)
    assert await index.get_records([key_of("d")]) == {key_of("d"): make_record("d")}
    assert places(await search_sparse(index, sparse_query("kept"), 1, EVERYWHERE)) == [("d", 1, 0)]
    await index.close()


async def test_collection_made_by_others_is_refused() -> None:
    client = AsyncQdrantClient(location=":memory:")
    await client.create_collection("theirs", vectors_config={})
    with pytest.raises(FingerprintMismatch, match="theirs"):
        await ServerIndex.open(client, collection="theirs", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_collection_of_another_format_is_refused() -> None:
    client = AsyncQdrantClient(location=":memory:")
    metadata = {"fingerprint": FINGERPRINT, "dimension": DIMENSION}
    await client.create_collection("old", vectors_config={}, metadata=metadata)
    with pytest.raises(
        IndexUnavailable, match=r"Collection old .* has format 1; this version reads 3\. .* ingest again"
    ):
        await ServerIndex.open(client, collection="old", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_server_that_is_too_old_is_refused() -> None:
    async with qdrant_over_grpc(version="1.18.2") as address:
        with pytest.raises(IndexUnavailable, match=r"is version 1\.18\.2; 1\.19 or newer is needed"):
            await ServerIndex.open(address, collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_server_that_is_away_or_misnamed() -> None:
    with pytest.raises(IndexUnavailable, match=r"http://127\.0\.0\.1:1 failed or cannot be reached"):
        await ServerIndex.open("http://127.0.0.1:1", collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)
    with pytest.raises(InvalidInput, match="qdrant_url is 'nonsense'"):
        await ServerIndex.open("nonsense", collection="c", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_opening_chooses_by_what_is_given(tmp_path: Path, owner_target: str) -> None:
    embedded = await open_index(dimension=DIMENSION, fingerprint=FINGERPRINT, directory=tmp_path / "d")
    assert isinstance(embedded, EmbeddedIndex)
    await embedded.close()
    remote = await open_index(dimension=DIMENSION, fingerprint=FINGERPRINT, target=owner_target, directory=tmp_path)
    assert isinstance(remote, RemoteIndex)
    await remote.close()
    with pytest.raises(IndexUnavailable, match="Qdrant"):
        await open_index(
            dimension=DIMENSION, fingerprint=FINGERPRINT, qdrant=QdrantServer("http://127.0.0.1:1"), target=owner_target
        )
    with pytest.raises(InvalidInput):
        await open_index(dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_a_servers_key_is_sent_and_never_shown() -> None:
    """A server that is too old for us, so that its first answer is its last."""
    shown: list[tuple[str, str | bytes]] = []

    class Old(Root):
        async def HealthCheck(self, request: Any, context: Any) -> Any:  # noqa: N802
            shown.extend(context.invocation_metadata())
            return await super().HealthCheck(request, context)

    server = grpc.aio.server()
    add_QdrantServicer_to_server(Old("1.1.0"), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    address = QdrantServer(f"http://127.0.0.1:{port - 1}", "secret-key")  # gRPC is on the port after the REST one
    with pytest.raises(IndexUnavailable, match=r"version 1\.1\.0") as refused:
        await open_index(dimension=DIMENSION, fingerprint=FINGERPRINT, qdrant=address)
    await server.stop(None)
    assert ("api-key", "secret-key") in [(key, value) for key, value in shown]
    assert "secret-key" not in f"{refused.value} {address} {address!r}"
