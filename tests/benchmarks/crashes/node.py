"""A node for tests: index owner, encoder and two ingestion workers, processes that are killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tests.benchmarks.crashes.failpoints import ARMED, HIT
from tests.processes import free_port

WORKERS = ("worker", "second worker")
PARTS = ("index", "encoder", *WORKERS)
_COLLECT_AFTER_S = 1.0


class Node:
    """The processes; what they print goes to files in the folder. The workers share one journal and one index."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {part: free_port() for part in PARTS}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, IO[bytes]] = {}
        root = Path(__file__).parents[3]
        self._environment = {
            **os.environ,  # noqa: TID251 - handed on, not read
            "PYTHONPATH": f"{root}:{root / 'proto'}",
            "MAMBASEARCH_DATA_DIR": str(folder / "data"),
            "MAMBASEARCH_INDEX_PORT": str(self._ports["index"]),
            "MAMBASEARCH_INDEX_TARGET": self.target("index"),
            "MAMBASEARCH_ENCODER_TARGET": self.target("encoder"),
            "MAMBASEARCH_COLLECT_AFTER_S": str(_COLLECT_AFTER_S),
        }
        self._commands = {
            "index": ["services.index_owner"],
            "encoder": ["tests.benchmarks.crashes.encoder", str(self._ports["encoder"])],
        }
        for number, worker in enumerate(WORKERS):
            self._points(worker).mkdir()
            self._commands[worker] = ["tests.benchmarks.crashes.worker", str(self._points(worker)), str(number)]

    def target(self, part: str) -> str:
        """Say where a part listens."""
        return f"127.0.0.1:{self._ports[part]}"

    def start(self, part: str) -> None:
        """Start a part; it is ready a second or two later."""
        if part not in self._logs:
            self._logs[part] = (self._folder / f"{part}.log").open("ab")
        log = self._logs[part]
        command = [sys.executable, "-m", *self._commands[part]]
        environment = self._environment | {"MAMBASEARCH_INGEST_PORT": str(self._ports[part])}
        self._running[part] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill(self, part: str) -> None:
        """Kill a part with SIGKILL, and wait until it is gone."""
        process = self._running.pop(part)
        process.kill()
        process.wait()

    def stop(self, part: str) -> int:
        """Ask a part to end (SIGTERM), wait until it has, and give its exit code."""
        process = self._running.pop(part)
        process.terminate()
        return process.wait()

    async def stop_at(self, worker: str, point: str, timeout_s: float) -> bool:
        """Wait until a worker stops itself at a point; say whether it has come there in time."""
        (self._points(worker) / ARMED).write_text(point)
        hit = self._points(worker) / HIT
        ends = time.monotonic() + timeout_s
        while not hit.exists() and time.monotonic() < ends:  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.002)
        (self._points(worker) / ARMED).unlink(missing_ok=True)
        return hit.exists()

    def go_on(self, worker: str) -> None:
        """Let a worker go on that has stopped itself, if it has not been killed."""
        for file in (ARMED, HIT):
            (self._points(worker) / file).unlink(missing_ok=True)
        if worker in self._running:
            self._running[worker].send_signal(signal.SIGCONT)

    def exited(self) -> dict[str, int]:
        """Name the parts that ended by themselves, with their exit codes."""
        return {part: code for part, process in self._running.items() if (code := process.poll()) is not None}

    def close(self) -> None:
        """Kill what runs."""
        for part in list(self._running):
            self.kill(part)
        for log in self._logs.values():
            log.close()

    def _points(self, worker: str) -> Path:
        return self._folder / f"points of {worker}"
