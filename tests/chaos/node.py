"""All parts of the product as programs of their own, to be killed and started again; a proxy before the index."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import IO

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.chaos.proxy import Proxy
from tests.processes import descendants, free_port
from tests.security.certificates import make_authority, replace, serial_number

ROOT = Path(__file__).parents[2]
MODULES = {
    "index": "services.index_owner",
    "encoder": "services.encoder_service",
    "search": "services.search_service",
    "ingest": "services.ingest_service",
}
_REPLICA = "ServeReplica"  # in the title that Ray gives the process
_APPLICATION = (("application", "encoder"),)
_DOORS = ("search", "ingest")  # which encrypt
_STOP_TIMEOUT_S = 30.0


class PartEnded(Exception):
    """A part ended by itself."""


class Node:
    """The processes; what they print goes to files in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {part: free_port() for part in MODULES}
        self._authority = make_authority(folder / "certificates")
        self._certificate = self._authority.sign("server")
        proxy_port = free_port()
        self.link = Proxy(proxy_port, self.ports["index"])  # between search, ingestion and the index owner
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, IO[bytes]] = {}
        self._environment = {
            **os.environ,  # noqa: TID251 - handed on, not read
            "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
            **{f"MAMBASEARCH_{part.upper()}_PORT": str(port) for part, port in self.ports.items()},
            "MAMBASEARCH_DATA_DIR": str(folder / "data"),
            "MAMBASEARCH_INDEX_TARGET": f"127.0.0.1:{proxy_port}",
            "MAMBASEARCH_ENCODER_TARGET": self.target("encoder"),
            "MAMBASEARCH_HTTP_PORT": "0",
            "MAMBASEARCH_QUERY_ENCODER": "service",
            "MAMBASEARCH_TLS_CERT": str(self._certificate.cert),
            "MAMBASEARCH_TLS_KEY": str(self._certificate.key),
        }

    def target(self, part: str) -> str:
        """Say where a part listens."""
        return f"127.0.0.1:{self.ports[part]}"

    def channel(self, part: str) -> grpc.aio.Channel:
        """Open a channel to a part, encrypted where it is a door; it is soon tried again where it is away."""
        options = [("grpc.max_reconnect_backoff_ms", 200)]
        if part not in _DOORS:
            return grpc.aio.insecure_channel(self.target(part), options=options)
        credentials = grpc.ssl_channel_credentials(self._authority.path.read_bytes())
        return grpc.aio.secure_channel(self.target(part), credentials, options=options)

    def rotate_certificate(self, name: str) -> int:
        """Put a new certificate in the place of the doors'; gives its serial number."""
        made = self._authority.sign(name)
        replace(self._certificate, made)
        return serial_number(made)

    def shown_serials(self) -> set[int]:
        """Shake hands with each door anew, and read the serial numbers of the certificates that they show."""
        shown = [ssl.get_server_certificate(("127.0.0.1", self.ports[door])) for door in _DOORS]
        return {x509.load_pem_x509_certificate(each.encode()).serial_number for each in shown}

    def start(self, part: str) -> None:
        """Start a part; it is ready some seconds later."""
        if part not in self._logs:
            self._logs[part] = (self.folder / f"{part}.log").open("ab")
        command = [sys.executable, "-m", MODULES[part]]
        self._running[part] = subprocess.Popen(
            command, env=self._environment, stdout=self._logs[part], stderr=self._logs[part], start_new_session=True
        )

    def kill(self, part: str) -> None:
        """Kill a part with SIGKILL, and wait until it is gone."""
        process = self._running.pop(part)
        process.kill()
        process.wait()

    def replica(self) -> int | None:
        """Find the process of the encoder's replica; None while there is none."""
        for pid in descendants(self._running["encoder"].pid):
            if _REPLICA in _title(pid):
                return pid
        return None

    def signal_replica(self, number: signal.Signals) -> int:
        """Send the replica a signal; gives its process id."""
        pid = self.replica()
        assert pid is not None, "the encoder has no replica"
        os.kill(pid, number)
        return pid

    async def until_healthy(self, part: str, timeout_s: float) -> None:
        """Wait until a part says that it serves."""
        async with asyncio.timeout(timeout_s):
            while not await self.is_healthy(part):
                self.check_running()
                await asyncio.sleep(0.2)

    async def is_healthy(self, part: str) -> bool:
        """Ask a part whether it serves."""
        async with self.channel(part) as channel:
            metadata = _APPLICATION if part == "encoder" else ()
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), metadata=metadata, timeout=2
                )
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def check_running(self) -> None:
        """Raise where a part ended that nobody killed."""
        for part, process in self._running.items():
            if process.poll() is not None:
                log = (self.folder / f"{part}.log").read_text(errors="replace")
                raise PartEnded(f"the {part} ended by itself (exit code {process.returncode}): {log[-2000:]}")

    async def close(self) -> None:
        """End what runs: the encoder by SIGTERM, as it has Ray to end; the others with it."""
        await self.link.close()
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            await asyncio.to_thread(_end, process)
        self._running.clear()
        for log in self._logs.values():
            log.close()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
