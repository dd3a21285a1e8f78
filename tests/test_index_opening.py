"""Opening an index: which one, whose it is, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from encoder.errors import FingerprintMismatch, IndexUnavailable, InvalidInput
from ingest.index.embedded import EmbeddedIndex
from ingest.index.opening import open_index
from ingest.index.remote import RemoteIndex
from ingest.index.server import ServerIndex
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
)
from tests.qdrant_over_grpc import qdrant_over_grpc

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
    assert places(await index.search_sparse(sparse_query("kept"), 1, EVERYWHERE)) == [("d", 1, 0)]
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
        IndexUnavailable, match=r"Collection old .* has format 1; this version reads 2\. .* ingest again"
    ):
        await ServerIndex.open(client, collection="old", dimension=DIMENSION, fingerprint=FINGERPRINT)


async def test_server_without_conditional_updates_is_refused() -> None:
    async with qdrant_over_grpc(version="1.16.3") as address:
        with pytest.raises(IndexUnavailable, match=r"is version 1\.16\.3; 1\.17 or newer is needed"):
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
            dimension=DIMENSION, fingerprint=FINGERPRINT, qdrant_url="http://127.0.0.1:1", target=owner_target
        )
    with pytest.raises(InvalidInput):
        await open_index(dimension=DIMENSION, fingerprint=FINGERPRINT)
