"""The product and the plain server as processes of their own, started on free ports and stopped again.

Starting and stopping block: nothing else has to go on meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import descendants, free_port

ROOT = Path(__file__).parents[3]
PARTS = ("encoder", "search", "ingest", "index", "http")
_READY_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 60.0
_LOG_SHOWN = 4000  # characters, where something goes wrong


@dataclass(frozen=True, slots=True)
class Product:
    """``mamba-search up``, running."""

    pid: int
    ports: Mapping[str, int]

    def target(self, part: str) -> str:
        """Say where a part answers."""
        return f"127.0.0.1:{self.ports[part]}"


@contextmanager
def product_running(data_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[Product]:
    """Start everything on a data directory, wait until it is ready, stop it at the end."""
    ports = {part: free_port() for part in PARTS}
    told = {f"MAMBASEARCH_{part.upper()}_PORT": str(port) for part, port in ports.items()}
    told |= {"MAMBASEARCH_DATA_DIR": str(data_dir), **(settings or {})}
    log = data_dir.parent / "up.log"
    command = [sys.executable, "-c", "from services.cli import main; main()", "up"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=_environment(told), stdout=output, stderr=subprocess.STDOUT)
    try:
        _until_said(process, log, "ready after")
        yield Product(process.pid, ports)
    except BaseException:
        # Its directory is usually gone once the reason is asked for.
        print(log.read_text(errors="replace")[-_LOG_SHOWN:], file=sys.stderr, flush=True)
        raise
    finally:
        process.terminate()
        _wait(process)


@contextmanager
def plain_server_running(shard: Path) -> Iterator[str]:
    """Start the plain server; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.load.plain_server", str(shard), str(port)]
    address = f"http://127.0.0.1:{port}"
    with (shard.parent / "plain.log").open("wb") as output:
        process = subprocess.Popen(
            command, env=_environment({"HF_HUB_OFFLINE": "1"}), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _until_answering(process, f"{address}/search")
        yield address
    finally:
        process.terminate()
        _wait(process)


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process and of all below it; Linux."""
    ticks = 0
    for each in {pid, *descendants(pid)}:
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _environment(told: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "proto"), os.environ.get("PYTHONPATH", "")])  # noqa: TID251 - handed on
    return {**os.environ, "PYTHONPATH": path, **told}  # noqa: TID251 - handed on, not read


def _until_said(process: subprocess.Popen[bytes], log: Path, words: str) -> None:
    ends = time.monotonic() + _READY_TIMEOUT_S
    while words not in (text := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > ends:
            raise SystemExit(f"The product did not start: {text[-2000:]}")
        time.sleep(0.2)


def _until_answering(process: subprocess.Popen[bytes], address: str) -> None:
    ends = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"{address}?query=warm"):
                return
        except urllib.error.URLError:
            pass
        if process.poll() is not None or time.monotonic() > ends:
            raise SystemExit("The plain server did not start; its log says why.")
        time.sleep(0.2)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
