"""The services as real processes for the fuzzer, the encoder on Ray Serve with a fake model in its replica."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.processes import descendants, free_port

ROOT = Path(__file__).parents[2]
APPLICATION = "query-encoder"
_MODULES = {
    "encoder": "tests.fake_encoder_service",
    "index": "services.index_owner",
    "ingest": "services.ingest_service",
    "search": "services.search_service",
}
_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True)
class Node:
    """Processes that run, and where each listens."""

    targets: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]]
    folder: Path

    def memory(self, part: str) -> int:
        """Bytes of memory that a part holds, with the processes that it started."""
        pids = {self.processes[part].pid} | descendants(self.processes[part].pid)
        return sum(_resident(pid) for pid in pids)

    def ended(self) -> list[str]:
        """Name the parts that run no more."""
        return [part for part, process in self.processes.items() if process.poll() is not None]

    def log(self, part: str) -> str:
        """Read what a part has logged so far."""
        return (self.folder / f"{part}.log").read_text(errors="replace")


@contextmanager
def running(folder: Path) -> Iterator[Node]:
    """Start all parts on free ports, with data and logs in a folder; wait until they serve; stop them at the end."""
    ports = {part: free_port() for part in _MODULES}
    targets = {part: f"127.0.0.1:{port}" for part, port in ports.items()}
    environment = {
        **os.environ,  # noqa: TID251 - handed on, not read
        "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
        "MAMBASEARCH_ENCODER_QUERY_APPLICATION": APPLICATION,
        "MAMBASEARCH_ENCODER_PASSAGE_APPLICATION": "passage-encoder",
        "MAMBASEARCH_ENCODER_TARGET": targets["encoder"],
        "MAMBASEARCH_INDEX_TARGET": targets["index"],
        "MAMBASEARCH_DATA_DIR": str(folder / "data"),
        "MAMBASEARCH_QUERY_ENCODER": "service",
        **{f"MAMBASEARCH_{part.upper()}_PORT": str(port) for part, port in ports.items()},
    }
    processes: dict[str, subprocess.Popen[bytes]] = {}
    node = Node(targets, processes, folder)
    try:
        for part, module in _MODULES.items():
            with (folder / f"{part}.log").open("wb") as log:
                command = [sys.executable, "-m", module]
                processes[part] = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
        for part in _MODULES:
            _wait_until_serving(node, part)
        yield node
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_serving(node: Node, part: str) -> None:
    ends = time.monotonic() + _START_TIMEOUT_S
    metadata = (("application", APPLICATION),) if part == "encoder" else ()
    with grpc.insecure_channel(node.targets[part], [("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < ends:
            assert not node.ended(), f"{node.ended()} ended: {node.log(node.ended()[0])[-2000:]}"
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=2)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.2)
    raise AssertionError(f"{part} did not serve within {_START_TIMEOUT_S} s: {node.log(part)[-2000:]}")


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0
