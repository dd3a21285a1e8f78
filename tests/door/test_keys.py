"""Keys: made, listed and revoked by commands; in a file that may change, break, and be written by two at once."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from encoder.errors import InvalidInput, NotFound
from services.cli.app import run
from services.cli.keys import seconds_of
from services.door.key_ring import KeyRing, create_key, read_key_file, revoke_key
from services.door.keys import KeyWishes, hash_of
from services.door.principal import Role

WISHES = KeyWishes(name="app", roles=(Role.SEARCH,), tenants=("t",))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def test_commands_make_list_and_revoke_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("MAMBASEARCH_KEYS_FILE", str(path))
    command = ["keys", "create", "the app", "--role", "search", "--role", "ingest", "--tenant", "acme"]
    assert run([*command, "--expires-in", "90d", "--requests-per-s", "5"]) == 0
    told = capsys.readouterr()
    key = told.out.strip()
    assert key not in told.err
    assert "It stands nowhere else" in told.err
    (entry,) = read_key_file(path).keys
    assert entry.hash == hash_of(key)
    assert key not in path.read_text()
    assert key.split("_", 2)[2] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert entry.expires_at is not None
    assert abs(entry.expires_at - time.time() - 90 * 86_400) < 60
    assert run(["keys", "create", "all", "--role", "admin", "--tenant", "*", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["tenants"] == "*"
    assert made["key"].startswith(f"ms_{made['id']}_")
    assert run(["keys", "create", "pod", "--role", "search", "--certificate", "pod.example"]) == 0
    assert "certificate pod.example" in capsys.readouterr().out
    assert run(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == [one.id for one in read_key_file(path).keys]
    assert "search, ingest  tenants acme, good until" in listed
    assert run(["keys", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not any("hash" in row for row in rows)
    assert run(["keys", "revoke", entry.id]) == 0
    assert len(read_key_file(path).keys) == 2
    assert run(["keys", "revoke", entry.id]) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "x", "--role", "boss"], "role is 'boss'; search, ingest, admin are known."),
        (["create", "x", "--role", "search", "--tenant", "a b"], "tenants"),
        (["create", "x", "--role", "search", "--expires-in", "soon"], "expires_in is 'soon'; give a number with"),
        (["create", "x" * 300, "--role", "search"], "name is not acceptable"),
        (["create", "x", "--role", "search", "--requests-per-s", "-1"], "requests_per_s is not acceptable"),
        (["list"], "cannot be read (No such file"),
    ],
)
def test_bad_wishes_are_refused(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", *arguments, "--file", str(tmp_path / "keys.json")]) == 2
    assert words in capsys.readouterr().err


def test_without_a_file_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "list"]) == 2
    assert "give --file, or set MAMBASEARCH_KEYS_FILE" in capsys.readouterr().err


def test_spans_of_time() -> None:
    assert [seconds_of(span) for span in ("5s", "2m", "3h", "1d", "2w")] == [5, 120, 10_800, 86_400, 1_209_600]
    for span in ("", "5", "d", "-1d", "0s", "999999w", "1.5h"):
        with pytest.raises(InvalidInput):
            seconds_of(span)


def test_a_ring_follows_its_file_and_keeps_the_last_good_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    entry, key = create_key(path, WISHES)
    assert key is not None
    ring = KeyRing(path, now=Clock())
    assert ring.keys().by_key(key) is not None
    _, second = create_key(path, WISHES)
    assert second is not None
    assert ring.keys().by_key(second) is not None
    for broken in ("nonsense", "{}", '{"keys": [{"id": "x"}]}', '{"keys": [], "more": 1}', "[" * 100_000):
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            path.write_text(broken)
            assert ring.keys().by_key(key) is not None
        assert "the keys stay as they were" in caplog.text
    path.unlink()
    assert ring.keys().by_key(key) is not None
    create_key(path, WISHES)
    assert ring.keys().by_key(key) is None
    with pytest.raises(NotFound):
        revoke_key(path, entry.id)


def test_a_ring_looks_once_in_a_while(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.json", [0.0]
    _, key = create_key(path, WISHES)
    ring = KeyRing(path, now=lambda: now[0])
    assert key is not None
    revoke_key(path, key.split("_")[1])
    now[0] = 0.9
    assert ring.keys().by_key(key) is not None
    now[0] = 1.0
    assert ring.keys().by_key(key) is None


@pytest.mark.parametrize("content", ['{"keys": [{"id": "a", "secret": "hunter2"}]}', "hunter2", '{"keys": "hunter2"}'])
def test_a_broken_file_is_refused_at_the_start_and_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match="is broken at") as failure:
        KeyRing(path)
    assert "hunter2" not in str(failure.value)


def test_two_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create_key(path, WISHES)[0].id, range(24)))
    assert {entry.id for entry in read_key_file(path).keys} == set(made)


def test_a_certificate_has_one_entry(tmp_path: Path) -> None:
    wishes = KeyWishes(name="pod", roles=(Role.SEARCH,), tenants=("t",), certificate="pod")
    create_key(tmp_path / "keys.json", wishes)
    with pytest.raises(InvalidInput, match="two entries have the same certificate"):
        create_key(tmp_path / "keys.json", wishes)


def test_keys_are_made_without_loading_grpc() -> None:
    code = "import sys; from services.door import key_ring; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
