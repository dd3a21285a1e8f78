"""The embedded index and its directory: what survives, who may open it, what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoder.errors import FingerprintMismatch, IndexUnavailable, InUse, InvalidInput, StorageFull
from ingest.index.data_directory import LOCK_FILE, MANIFEST_FILE, read_manifest
from ingest.index.embedded import EmbeddedIndex
from ingest.index.engine import SEARCH_THREADS
from ingest.index.interface import DEFAULT_TENANT, IndexedChunk, IndexHit, IndexStats, StoredChunk
from ingest.sparse import sparse_passage, sparse_query
from tests.indexes import EVERYWHERE, key_of, make_record, search_dense, search_sparse

DIMENSION = 16
FINGERPRINT = "model=m chunker=c"


async def open_index(directory: Path, fingerprint: str = FINGERPRINT, **options: int) -> EmbeddedIndex:
    return await EmbeddedIndex.open(directory, dimension=DIMENSION, fingerprint=fingerprint, **options)


def embedding_of(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)


def make_chunks(first: int, last: int) -> list[IndexedChunk]:
    return [
        IndexedChunk(
            StoredChunk(DEFAULT_TENANT, f"doc{number}", 1, 0, 0, 9, 1, 1, (), 2, f"common word{number}"),
            embedding_of(number),
            sparse_passage(f"common word{number}"),
        )
        for number in range(first, last)
    ]


async def nearest(index: EmbeddedIndex, number: int) -> IndexHit:
    return (await search_dense(index, embedding_of(number), 1, EVERYWHERE))[0]


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def test_all_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    index = await open_index(tmp_path / "new" / "data")
    await index.upsert_chunks(make_chunks(0, 100))
    await index.close()
    await index.close()
    with pytest.raises(IndexUnavailable, match="is closed"):
        await index.stats()
    index = await open_index(tmp_path / "new" / "data")
    assert (await index.stats()).chunk_count == 100
    assert (await nearest(index, 42)).chunk.document_id == "doc42"
    assert (await search_sparse(index, sparse_query("word7"), 1, EVERYWHERE))[0].chunk.document_id == "doc7"
    await index.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.indexes import key_of
from tests.test_embedded_index import make_chunks, open_index

async def main():
    index = await open_index(Path(sys.argv[1]))
    for start in range(0, 10**9, 10):
        await index.upsert_chunks(make_chunks(start, start + 10))
        await index.fence(key_of("fenced"), start + 10)
        print(start + 10, flush=True)

asyncio.run(main())
"""


def write_and_kill(directory: Path) -> int:
    """Have another process write until it is killed; say how many chunks it acknowledged."""
    command = [sys.executable, "-c", WRITER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        while acknowledged < 1500:
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    return int(rest[-1]) if rest else acknowledged


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    acknowledged = write_and_kill(tmp_path)
    index = await open_index(tmp_path)
    assert (await index.stats()).chunk_count >= acknowledged
    assert (await index.get_fences([key_of("fenced")]))[key_of("fenced")] >= acknowledged
    for number in range(0, acknowledged, 97):
        assert (await nearest(index, number)).chunk.document_id == f"doc{number}"
    await index.close()


async def test_the_log_is_synced_where_anything_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await open_index(tmp_path)).close()
    synced: list[Path] = []
    monkeypatch.setattr("ingest.index.engine.sync_tree", synced.append)
    index = await open_index(tmp_path)
    await index.flush()  # what opening replayed
    await index.flush()
    assert synced == [tmp_path / "engine-1" / "wal"]
    for number, write in enumerate(
        (
            index.upsert_chunks(make_chunks(0, 1)),
            index.fence(key_of("doc0"), 1),
            index.delete_chunks(key_of("doc0"), generation=1),
            index.drop_tombstone(key_of("doc0"), 1),
        ),
        start=2,
    ):
        await write
        await index.flush()
        await index.flush()
        assert len(synced) == number
    await index.fence(key_of("doc0"), 0)  # changes nothing
    await index.flush()
    assert len(synced) == 5
    await index.close()


async def test_the_log_alone_holds_what_was_written(tmp_path: Path) -> None:
    index = await open_index(tmp_path / "index")
    await index.close()
    shutil.copytree(tmp_path / "index", tmp_path / "after")
    index = await open_index(tmp_path / "index")
    await index.upsert_chunks(make_chunks(0, 3))
    await index.flush()
    shutil.rmtree(tmp_path / "after" / "engine-1" / "wal")
    shutil.copytree(tmp_path / "index" / "engine-1" / "wal", tmp_path / "after" / "engine-1" / "wal")
    await index.close()
    recovered = await open_index(tmp_path / "after")
    assert (await recovered.stats()).chunk_count == 3
    await recovered.close()


async def test_a_second_opener_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    index = await open_index(tmp_path)
    with pytest.raises(InUse, match=rf"{tmp_path} is held by another process \(pid {os.getpid()}\); stop"):
        await open_index(tmp_path)
    await index.upsert_chunks(make_chunks(0, 1))
    await index.close()
    await (await open_index(tmp_path)).close()


async def test_another_model_or_dimension_is_refused_and_lets_go(tmp_path: Path) -> None:
    await (await open_index(tmp_path)).close()
    with pytest.raises(FingerprintMismatch, match=r"model=m chunker=c .*model=other"):
        await open_index(tmp_path, "model=other")
    with pytest.raises(FingerprintMismatch, match=r"dimension 16.*dimension 17"):
        await EmbeddedIndex.open(tmp_path, dimension=17, fingerprint=FINGERPRINT)
    await (await open_index(tmp_path)).close()


async def test_nothing_is_written_to_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    index = await open_index(tmp_path)
    await index.upsert_chunks(make_chunks(0, 5))
    await index.commit_record(make_record("doc3"))
    await index.close()
    index = await open_index(tmp_path, write_bytes_min=1 << 60)
    with pytest.raises(StorageFull, match=r"MiB free; the index is not written below .* MiB\. Free some space"):
        await index.upsert_chunks(make_chunks(5, 6))
    assert (await nearest(index, 3)).chunk.document_id == "doc3"
    for writing in (index.commit_record(make_record("doc4")), index.fence(key_of("doc4"), 1)):
        with pytest.raises(StorageFull):
            await writing
    assert await index.delete_record(key_of("doc3"), 2)  # makes room
    assert await index.delete_chunks(key_of("doc3"), below=2) == 1
    assert (await index.stats()).chunk_count == 4
    await index.close()
    with pytest.raises(StorageFull):
        await open_index(tmp_path / "new", write_bytes_min=1 << 60)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: (data / MANIFEST_FILE).write_text("{"), r"index\.json is corrupt; restore it"),
        (lambda data: (data / MANIFEST_FILE).write_text('{"dimension": 0}'), r"index\.json is corrupt; restore it"),
        (lambda data: (data / MANIFEST_FILE).unlink(), r"index\.json is missing though .*restore that file"),
        (lambda data: _edit_manifest(data, '"format_version": 3', '"format_version": 2'), "has format 2"),
        (lambda data: (data / "engine-1" / "edge_config.json").write_bytes(b"\0"), "failed on .*restore it"),
        (lambda data: _spoil(data, "payload_index/*-kind-map/tracker.dat"), "failed on .*restore it"),
        (lambda data: _spoil(data, "segment.json"), "failed on .*restore it"),
    ],
)
async def test_a_damaged_directory_is_named_with_what_to_do(tmp_path: Path, damage: object, message: str) -> None:
    assert callable(damage)
    index = await open_index(tmp_path)
    await index.upsert_chunks(make_chunks(0, 5))
    await index.close()
    damage(tmp_path)
    with pytest.raises(IndexUnavailable, match=message):
        await open_index(tmp_path)


def _edit_manifest(data: Path, old: str, new: str) -> None:
    manifest = data / MANIFEST_FILE
    assert old in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(old, new))


def _spoil(data: Path, pattern: str) -> None:
    (path,) = data.glob(f"engine-1/segments/*/{pattern}")
    path.write_bytes(b"\xff" * path.stat().st_size)


async def test_a_path_that_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInput, match=r"data_dir .*/file is a file; give a directory\."):
            await open_index(path)
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    with pytest.raises(IndexUnavailable, match=r"broken cannot be used \(File exists\)"):
        await open_index(tmp_path / "broken")


async def test_a_crash_while_making_the_index_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    index = await open_index(tmp_path)
    await index.close()
    (tmp_path / "engine-1").rename(tmp_path / "engine-1.new")  # the manifest came first, then the draft
    index = await open_index(tmp_path)
    assert (await index.stats()).chunk_count == 0
    await index.close()
    assert names_in(tmp_path) == {LOCK_FILE, MANIFEST_FILE, "engine-1"}


async def test_graphs_are_built_beside_searches_and_writes(tmp_path: Path) -> None:
    index = await open_index(tmp_path, optimize_points_min=500)
    await index.upsert_chunks(make_chunks(0, 100))
    assert index._optimization is None
    for start in range(100, 600, 100):
        await index.upsert_chunks(make_chunks(start, start + 100))
    optimization = index._optimization
    assert optimization is not None
    written = 600
    while not optimization.done():
        await index.upsert_chunks(make_chunks(written, written + 1))
        gone = key_of(f"doc{written - 300}")
        assert await index.commit_record(make_record(gone.document_id))
        assert await index.delete_record(gone, 2)
        assert await index.delete_chunks(gone, below=2) == 1
        await index.drop_tombstone(gone, 2)
        assert await index.commit_record(make_record("growing", generation=written))
        assert (await nearest(index, written)).chunk.document_id == f"doc{written}"
        written += 1
        await asyncio.sleep(0.005)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.engine_number == 2
    assert 500 <= manifest.optimized_points <= 600
    for _ in range(2):
        assert (await index.stats()).chunk_count == 300 + 300
        for number in (0, 299, written - 300, written - 1):
            assert (await nearest(index, number)).chunk.document_id == f"doc{number}"
        assert await index.count_chunks(key_of("doc300"), 1) == 0
        assert await index.get_fences([key_of("doc300"), key_of("growing")]) == {key_of("growing"): written - 1}
        assert names_in(tmp_path) == {LOCK_FILE, MANIFEST_FILE, "engine-2"}
        await index.close()
        index = await open_index(tmp_path)
    await index.close()


async def test_what_is_due_can_be_started_after_opening(tmp_path: Path) -> None:
    index = await open_index(tmp_path)
    await index.upsert_chunks(make_chunks(0, 128))
    await index.close()
    index = await open_index(tmp_path, optimize_points_min=100)
    assert index._optimization is None
    index.optimize_when_due()
    optimization = index._optimization
    assert optimization is not None
    index.optimize_when_due()
    assert index._optimization is optimization
    await optimization
    index.optimize_when_due()
    assert index._optimization is None
    assert names_in(tmp_path) == {LOCK_FILE, MANIFEST_FILE, "engine-2"}
    assert (await nearest(index, 5)).chunk.document_id == "doc5"
    await index.close()


async def test_closing_ends_an_optimization(tmp_path: Path) -> None:
    index = await open_index(tmp_path, optimize_points_min=100)
    await index.upsert_chunks(make_chunks(0, 128))
    while not (tmp_path / "engine-2").exists():  # noqa: ASYNC110 - another task makes it
        await asyncio.sleep(0.001)
    await index.close()
    assert names_in(tmp_path) == {LOCK_FILE, MANIFEST_FILE, "engine-1"}
    index = await open_index(tmp_path)
    assert (await index.stats()).chunk_count == 128
    await index.close()


async def test_an_optimization_that_fails_is_logged_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.index.optimizing.sys.executable", "/bin/false")
    index = await open_index(tmp_path, optimize_points_min=100)
    await index.upsert_chunks(make_chunks(0, 128))
    optimization = index._optimization
    assert optimization is not None
    await optimization
    assert "the index was not optimized" in caplog.text
    await index.upsert_chunks(make_chunks(128, 130))
    assert index._optimization is None
    assert (await nearest(index, 129)).chunk.document_id == "doc129"
    await index.close()
    assert names_in(tmp_path) == {LOCK_FILE, MANIFEST_FILE, "engine-1"}


async def test_what_was_made_with_other_settings_searches_on_one_thread_as_well(tmp_path: Path) -> None:
    index = await open_index(tmp_path)
    await index.upsert_chunks(make_chunks(0, 20))
    await index.close()
    settings = tmp_path / "engine-1" / "edge_config.json"
    written = json.loads(settings.read_text())
    assert written.pop("max_search_threads") == SEARCH_THREADS
    settings.write_text(json.dumps(written))
    index = await open_index(tmp_path)
    assert json.loads(settings.read_text())["max_search_threads"] == SEARCH_THREADS
    assert (await nearest(index, 7)).chunk.document_id == "doc7"
    await index.close()


async def test_what_is_committed_and_counted_is_the_same_after_opening(tmp_path: Path) -> None:
    index = await open_index(tmp_path)
    await index.upsert_chunks(make_chunks(0, 30))
    await index.upsert_chunks(make_chunks(0, 3))  # again
    for number in range(20):
        assert await index.commit_record(make_record(f"doc{number}"))
    assert await index.commit_record(make_record("doc5", generation=2))
    for number in range(4):
        assert await index.delete_record(key_of(f"doc{number}"), 2)
    assert await index.delete_chunks(key_of("doc0"), below=2) == 1
    await index.drop_tombstone(key_of("doc0"), 2)
    await index.drop_tombstone(key_of("doc1"), 9)  # none of this generation
    await index.fence(key_of("never came"), 1)
    expected = {f"doc{number}": (2 if number == 5 else 1,) for number in range(4, 20)}
    for _ in range(2):
        answer = await index.search(embedding_of(1), None, 100, EVERYWHERE)
        assert len(answer.dense) == 29
        assert answer.committed == expected
        assert await index.stats() == IndexStats(document_count=16, chunk_count=29)
        await index.close()
        index = await open_index(tmp_path)
    for number in range(4, 20):
        await index.delete_record(key_of(f"doc{number}"), 3)
    assert (await index.stats()).document_count == 0
    assert (await index.search(embedding_of(1), None, 100, EVERYWHERE)).committed == {}
    await index.close()
