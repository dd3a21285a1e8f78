"""Stored states of the encoder: exactly what was saved, or nothing; bounded in bytes and in time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import states
from ingest.index.interface import DocumentKey
from ingest.states import ReadSoFar, StateStore, open_states
from tests.pipelining import Clock

KEY = DocumentKey("default", "../log/é 1")
READ = ReadSoFar(KEY, 3, "model=m chunker=c", 12, 3456)
STATE = bytes(range(256)) * 4


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(states, "WRITE_BYTES_MIN", 0)
    return tmp_path / "states"


@pytest.fixture
def store(folder: Path, clock: Clock) -> StateStore:
    return StateStore(folder, bytes_max=1 << 20, keep_s=100, now=clock)


def test_a_state_comes_back_also_in_another_process(store: StateStore, folder: Path, clock: Clock) -> None:
    assert store.load(READ) is None
    store.save(READ, STATE, keep=0)
    assert StateStore(folder, bytes_max=1 << 20, keep_s=100, now=clock).load(READ) == STATE
    store.save(READ, b"", keep=0)
    assert store.load(READ) == b""
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"key": DocumentKey("other", KEY.document_id)},
        {"key": DocumentKey("default", "b")},
        {"generation": 4},
        {"fingerprint": "model=n chunker=c"},
        {"chunk_count": 13},
        {"char_end": 3457},
    ],
)
def test_the_state_of_something_else_is_none(store: StateStore, folder: Path, change: dict[str, Any]) -> None:
    other = replace(READ, **change)
    store.save(READ, STATE, keep=0)
    assert store.load(other) is None
    (file,) = folder.iterdir()
    file.rename(store._path(other.key, other.generation))  # even under the other's name
    assert store.load(other) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_state_is_none(store: StateStore, place: float, value: int, cut: bool) -> None:
    store.save(READ, STATE, keep=0)
    path = store._path(KEY, 3)
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    changed = data[:at] if cut else data[:at] + bytes([value]) + data[at + 1 :]
    path.write_bytes(changed)
    assert store.load(READ) == (STATE if changed == data else None)


def test_of_a_document_the_visible_version_and_the_coming_one_are_kept(store: StateStore) -> None:
    other = replace(READ, key=DocumentKey("default", "b"))
    store.save(other, STATE, keep=0)
    for generation in (3, 4, 6):
        store.save(replace(READ, generation=generation), STATE, keep=generation - 1)
    found = [store.load(replace(READ, generation=generation)) is not None for generation in (3, 4, 6)]
    assert found == [False, False, True]
    store.save(replace(READ, generation=7), STATE, keep=6)
    assert store.load(replace(READ, generation=6)) == store.load(replace(READ, generation=7)) == STATE
    store.forget(KEY)
    assert store.load(replace(READ, generation=7)) is None
    assert store.load(other) == STATE


def test_the_least_recently_used_go_first(folder: Path, clock: Clock) -> None:
    size = 1000 + 400  # with its line
    store = StateStore(folder, bytes_max=3 * size, keep_s=1e9, now=clock)
    reads = [replace(READ, key=DocumentKey("default", f"d{number}")) for number in range(5)]
    for read in reads[:3]:
        store.save(read, b"x" * 1000, keep=0)
        clock.now += 1
    assert store.load(reads[0]) is not None
    clock.now += 1
    store.save(reads[3], b"x" * 1000, keep=0)
    assert [store.load(read) is not None for read in reads] == [True, False, True, True, False]
    store.save(reads[4], b"x" * 3 * size, keep=0)  # larger than all the room
    assert store.load(reads[4]) is None
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3 * size


def test_what_nobody_uses_expires(store: StateStore, folder: Path, clock: Clock) -> None:
    (folder / "abandoned.new").parent.mkdir()
    store.save(READ, STATE, keep=0)
    for _ in range(3):
        clock.now += 60
        assert store.load(READ) == STATE
    clock.now += 101
    assert store.load(READ) is None
    store.save(replace(READ, key=DocumentKey("default", "b")), STATE, keep=0)
    assert not store._path(KEY, 3).exists()


def test_a_folder_or_a_disk_that_takes_nothing_is_no_error(
    store: StateStore, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(states, "WRITE_BYTES_MIN", 1 << 60)
    store.save(READ, STATE, keep=0)
    assert store.load(READ) is None
    folder.rmdir()
    folder.write_text("a file")
    store.save(READ, STATE, keep=0)
    store.forget(KEY)
    assert store.load(READ) is None
    assert "the state of ../log/é 1 is not kept" in caplog.text


def test_none_are_kept_where_there_is_no_room_or_no_time(tmp_path: Path) -> None:
    assert open_states(tmp_path, bytes_max=0, keep_s=10) is None
    assert open_states(tmp_path, bytes_max=10, keep_s=0) is None
    assert open_states(tmp_path, bytes_max=10, keep_s=10) is not None
