"""One port for the metrics of all replicas of a machine. Knows no metric.

Replicas come and go as Ray Serve sees fit, and Prometheus wants an address that stays. So each answers on a Unix socket
in a directory of the machine, under a number that is free, and whichever has the port asks all of them and tells what
they told, each with its label ``replica``. When that one ends, another takes the port.
"""

from __future__ import annotations

import fcntl
import http.client
import logging
import os
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from encoder.errors import InUse
from services.observing.http_server import MetricsServer, SocketServer

REPLICAS_MAX = 64
# A replica that does not answer within this time is left out of a scrape.
ANSWER_TIMEOUT_S = 2.0
# How often replicas that have not the port try to get it.
PERIOD_S = 1.0
# A Unix socket's path has 107 characters at most.
_DIRECTORY_CHARS_MAX = 60
_SOCKET = ".sock"

logger = logging.getLogger(__name__)


class NodeMetrics:
    """Tells a replica's metrics until :meth:`close`, and those of the machine's others while it has the port."""

    def __init__(self, registry: CollectorRegistry, application: str, host: str, port: int) -> None:
        """:class:`InUse` where the machine has ``REPLICAS_MAX`` replicas of the application already."""
        directory = metrics_directory(port)
        name = re.sub(r"[^A-Za-z0-9_-]", "-", application)[:32]
        self._lock, self.replica = _free_number(directory, name)
        self._own = SocketServer(registry, directory / f"{self.replica}{_SOCKET}")
        self._stop = threading.Event()
        self._taking = threading.Thread(
            target=self._take_port, args=(NodeCollector(directory), host, port), name="metrics-port", daemon=True
        )
        self._taking.start()

    def close(self) -> None:
        """Tell nothing more."""
        self._stop.set()
        self._taking.join()
        self._own.close()
        self._lock.close()

    def _take_port(self, collector: NodeCollector, host: str, port: int) -> None:
        waited = False
        while not self._stop.is_set():
            try:
                server = MetricsServer(collector, host, port)
            except InUse as error:
                if not waited:
                    logger.debug("waiting for the port of metrics: %s", error)
                waited = True
                self._stop.wait(PERIOD_S)
                continue
            logger.info("metrics of this machine's replicas on %s:%d", host, server.port)
            self._stop.wait()
            server.close()


class NodeCollector(Collector):
    """What all replicas of a machine tell, in one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Ask each replica; those that are gone, or stuck, are left out."""
        families: dict[str, Metric] = {}
        for path in sorted(self._directory.glob(f"*{_SOCKET}"))[: 2 * REPLICAS_MAX]:
            try:
                text = _ask(path)
            except (OSError, http.client.HTTPException):
                continue
            for family in text_string_to_metric_families(text):
                whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.add_sample(sample.name, {**sample.labels, "replica": path.stem}, sample.value)
        yield from families.values()


def metrics_directory(port: int) -> Path:
    """Make, or find, this user's directory for the replicas behind a port; :class:`InUse` where it is another's."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _DIRECTORY_CHARS_MAX // 2:
        parent = Path("/tmp")  # noqa: S108 - the directory below is checked
    directory = parent / f"mambasearch-metrics-{os.getuid()}-{port}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not directory.is_dir() or directory.is_symlink():
        raise InUse(
            f"{directory} is not a directory of this user alone; remove it, or choose another port for metrics."
        )
    return directory


def _free_number(directory: Path, name: str) -> tuple[IO[str], str]:
    """Lock the first number that no living process has; it is free again when this one ends, however it does."""
    for number in range(REPLICAS_MAX):
        replica = f"{name}-{number}"
        lock = (directory / f"{replica}.lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return lock, replica
    raise InUse(f"{directory} has {REPLICAS_MAX} replicas of {name} already; set encoder_metrics_port to 0.")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_TIMEOUT_S)
        self.sock.connect(str(self._path))


def _ask(path: Path) -> str:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
