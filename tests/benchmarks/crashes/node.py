"""A node for tests: index owner, encoder and ingestion worker as processes that are killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.processes import free_port

PARTS = ("index", "encoder", "worker")
_COLLECT_AFTER_S = 1.0


class Node:
    """The processes; what they print goes to files in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
            "MAMBASEARCH_INGEST_PORT": str(self._ports["worker"]),
            "MAMBASEARCH_COLLECT_AFTER_S": str(_COLLECT_AFTER_S),
        }
        self._commands = {
            "index": ["services.index_owner"],
            "encoder": ["tests.benchmarks.crashes.encoder", str(self._ports["encoder"])],
            "worker": ["tests.benchmarks.crashes.worker", str(folder)],
        }

    def target(self, part: str) -> str:
        """Say where a part listens."""
        return f"127.0.0.1:{self._ports[part]}"

    def start(self, part: str) -> None:
        """Start a part; it is ready a second or two later."""
        if part not in self._logs:
            self._logs[part] = (self.folder / f"{part}.log").open("ab")
        log = self._logs[part]
        command = [sys.executable, "-m", *self._commands[part]]
        self._running[part] = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

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

    def go_on(self, part: str) -> None:
        """Let a part go on that has stopped itself."""
        if part in self._running:
            self._running[part].send_signal(signal.SIGCONT)

    def exited(self) -> dict[str, int]:
        """Name the parts that ended by themselves, with their exit codes."""
        return {part: code for part, process in self._running.items() if (code := process.poll()) is not None}

    def close(self) -> None:
        """Kill what runs."""
        for part in list(self._running):
            self.kill(part)
        for log in self._logs.values():
            log.close()
