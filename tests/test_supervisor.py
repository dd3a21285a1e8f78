"""Starting, watching and stopping processes, with parts that misbehave."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import alive, descendants, free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
ROOT = Path(__file__).parent.parent


class FakeUp:
    def __init__(self, folder: Path, *, stop_timeout_s: float = 1, **behaviours: str) -> None:
        self.data_dir = folder / "data"
        parts = [word for name, how in behaviours.items() for word in (name, str(free_port()), how)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_up", str(self.data_dir), *parts],
            cwd=ROOT,
            env=os.environ  # noqa: TID251 - for a child process
            | {
                "PYTHONPATH": f"{ROOT}:{folder}",
                "MAMBASEARCH_RAY_DIR": "/tmp/mamba-not-made",
                "MAMBASEARCH_UP_TIMEOUT_S": "4",
                "MAMBASEARCH_STOP_TIMEOUT_S": str(stop_timeout_s),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def wait_for(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if words in line:
                return
        raise AssertionError(self.output)

    def end(self) -> int:
        """Wait for the end; give the exit code."""
        rest, _ = self.process.communicate(timeout=20)
        self.output += rest
        return self.process.returncode


def none_alive(pids: set[int], within_s: float = 0) -> bool:
    deadline = time.monotonic() + within_s
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_everything_starts_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    up = FakeUp(tmp_path, first="serve", second="serve")
    up.wait_for("ready after")
    pids = descendants(up.process.pid)
    assert len(pids) == 2
    up.process.send_signal(number)
    assert up.end() == 0
    assert none_alive(pids)
    for line in (
        "starting first, second; logs are in",
        "first is ready on 127.0.0.1:",
        "second is ready on",
        "stopped",
    ):
        assert line in up.output
    assert "a line of the log serve" in (up.data_dir / "logs" / "first.log").read_text()


def test_a_part_that_ends_by_itself_ends_everything(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, first="serve", second="die")
    up.wait_for("ready after")
    pids = descendants(up.process.pid)
    assert up.end() == 69
    assert "second | a line of the log die" in up.output
    log = up.data_dir / "logs" / "second.log"
    assert f"The second process ended by itself (exit code 1); its log is {log}." in up.output
    assert none_alive(pids)


def test_a_part_that_refuses_is_quoted(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, first="refuse")
    assert up.end() == 69
    log = up.data_dir / "logs" / "first.log"
    assert f"The first process ended (exit code 6, log {log}): a line of the log refuse" in up.output
    assert "first |" not in up.output


def test_a_part_that_is_killed_ends_everything(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, first="serve", second="serve")
    up.wait_for("ready after")
    pids = descendants(up.process.pid)
    os.kill(max(pids), signal.SIGKILL)
    assert up.end() == 69
    assert "process ended by itself (signal 9)" in up.output
    assert none_alive(pids)


def test_a_part_that_never_gets_ready_is_named(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, first="serve", second="wait")
    up.wait_for("first is ready")
    pids = descendants(up.process.pid)
    assert up.end() == 75
    assert "Not ready within 4 s: second; the logs say why" in up.output
    assert none_alive(pids)


def test_the_stubborn_and_the_orphaned_are_killed(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, first="stubborn", second="breed")
    up.wait_for("ready after")
    pids = descendants(up.process.pid)
    assert len(pids) == 3
    up.process.terminate()
    assert up.end() == 0
    assert "first did not stop within 1 s and was killed" in up.output
    assert none_alive(pids)


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, stop_timeout_s=60, first="stubborn", second="stubborn")
    up.wait_for("ready after")
    pids = descendants(up.process.pid)
    up.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert up.process.poll() is None
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0
    assert none_alive(pids)


def test_stopping_while_starting(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, first="wait", second="wait")
    up.wait_for("starting")
    pids = descendants(up.process.pid)
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0
    assert "ready after" not in up.output
    assert none_alive(pids)


def test_parts_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, first="serve", second="serve")
    up.wait_for("ready after")
    pids = descendants(up.process.pid)
    up.process.kill()
    assert up.end() == -signal.SIGKILL
    assert none_alive(pids, within_s=10)


def test_whoever_stops_reading_stops_nothing_else(tmp_path: Path) -> None:
    up = FakeUp(tmp_path, first="serve")
    up.wait_for("starting")
    pids = descendants(up.process.pid)
    assert up.process.stdout is not None
    up.process.stdout.close()
    time.sleep(1)
    up.process.terminate()
    up.process.wait(20)
    assert none_alive(pids)


def test_the_log_before_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        up = FakeUp(tmp_path, first="serve")
        up.wait_for("ready after")
        up.process.terminate()
        assert up.end() == 0
    assert {path.name for path in (up.data_dir / "logs").iterdir()} == {"first.log", "first.log.1"}
