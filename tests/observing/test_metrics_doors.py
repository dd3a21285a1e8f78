"""Where metrics are read: a process's own port, and one port for all replicas of a machine."""

import http.client
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from encoder.errors import InUse
from services.observing import node
from services.observing.http_server import REQUESTS_MAX, MetricsServer
from services.observing.node import NodeMetrics, metrics_directory
from tests.processes import free_port


def scrape(port: int, path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def counting(value: float) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("mambasearch_test", "A count.", ("lane",), registry=registry).labels("queries").inc(value)
    Histogram("mambasearch_test_seconds", "Times.", buckets=(1.0,), registry=registry).observe(value)
    return registry


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_port_tells_a_registry_and_nothing_else() -> None:
    server = MetricsServer(counting(3), "127.0.0.1", 0)
    try:
        status, told = scrape(server.port)
        assert status == 200
        assert 'mambasearch_test_total{lane="queries"} 3.0' in told
        assert scrape(server.port, "/metrics?x=1")[0] == 200
        assert scrape(server.port, "/../etc/passwd")[0] == 404
    finally:
        server.close()
    with pytest.raises(OSError):  # noqa: PT011 - nobody listens any more
        scrape(server.port)


def test_a_port_that_another_has_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InUse, match=f"Port {port} on 127.0.0.1, for metrics, cannot be had"):
            MetricsServer(CollectorRegistry(), "127.0.0.1", port)


def test_clients_that_say_nothing_lose_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.observing.http_server._Handler.timeout", 3.0)
    server = MetricsServer(counting(1), "127.0.0.1", 0)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(REQUESTS_MAX)]
    try:
        until(lambda: not _answers(server.port))
        until(lambda: _answers(server.port))
    finally:
        for one in silent:
            one.close()
        server.close()


def _answers(port: int) -> bool:
    try:
        return scrape(port)[0] == 200
    except (http.client.HTTPException, OSError):
        return False


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ports change hands at once, in a temporary directory whose path is short."""
    monkeypatch.setattr(node, "PERIOD_S", 0.05)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(node.tempfile, "gettempdir", lambda: folder)
        yield


@pytest.mark.usefixtures("quick")
def test_replicas_of_a_machine_share_a_port_and_pass_it_on() -> None:
    port = free_port()
    first = NodeMetrics(counting(1), "encoder", "127.0.0.1", port)
    second = NodeMetrics(counting(2), "encoder", "127.0.0.1", port)
    other = NodeMetrics(counting(3), "query/encoder", "127.0.0.1", port)
    try:
        until(lambda: _answers(port))
        _, told = scrape(port)
        counts = re.findall(r'^mambasearch_test_total\{lane="queries",replica="(.*)"\} (.*)$', told, re.MULTILINE)
        assert counts == [("encoder-0", "1.0"), ("encoder-1", "2.0"), ("query-encoder-0", "3.0")]
        assert told.count("# TYPE mambasearch_test_seconds histogram") == 1
        assert 'mambasearch_test_seconds_bucket{le="1.0",replica="encoder-0"} 1.0' in told
        first.close()
        until(lambda: _answers(port) and 'replica="encoder-0"' not in scrape(port)[1])
        assert 'replica="encoder-1"' in scrape(port)[1]
        first = NodeMetrics(counting(4), "encoder", "127.0.0.1", port)
        assert first.replica == "encoder-0", "a number that is free again is given again"
    finally:
        for one in (first, second, other):
            one.close()


@pytest.mark.usefixtures("quick")
def test_a_replica_that_is_stuck_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "ANSWER_TIMEOUT_S", 0.2)
    port = free_port()
    path = metrics_directory(port) / "encoder-7.sock"
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(path))
        stuck.listen()
        one = NodeMetrics(counting(1), "encoder", "127.0.0.1", port)
        try:
            until(lambda: _answers(port))
            assert 'replica="encoder-0"' in scrape(port)[1]
        finally:
            one.close()
            path.unlink()


@pytest.mark.usefixtures("quick")
def test_a_directory_of_somebody_else_is_refused() -> None:
    metrics_directory(1).chmod(0o755)
    with pytest.raises(InUse, match="not a directory of this user alone"):
        metrics_directory(1)


def test_scrapes_at_once_are_answered() -> None:
    registry = CollectorRegistry()
    Gauge("mambasearch_test", "A number.", registry=registry).set(1)
    server = MetricsServer(registry, "127.0.0.1", 0)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert [status for status, _ in pool.map(scrape, [server.port] * 20)] == [200] * 20
    finally:
        server.close()
