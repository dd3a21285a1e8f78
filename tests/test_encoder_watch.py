"""Noticing that the encoder service is gone."""

import threading
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from encoder.errors import Unavailable
from services.encoding.watch import watch


class Health(health.HealthServicer):
    """Answers, then is full, then is silent."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.silent = threading.Event()

    def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> object:  # noqa: N802
        self.calls.append(dict(context.invocation_metadata())["application"])
        if len(self.calls) > 8:
            self.silent.set()
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        if len(self.calls) > 4:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def test_a_full_queue_is_an_answer_and_silence_is_the_end() -> None:
    server, servicer = grpc.server(futures.ThreadPoolExecutor(2)), Health()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(Unavailable, match=r"Ray Serve's (one and two|one|two) gave no answer for 1 s"):
        watch(f"127.0.0.1:{port}", ["one", "two"], threading.Event(), silence_max_s=1, period_s=0.05)
    server.stop(None)
    assert servicer.silent.is_set()
    assert set(servicer.calls) == {"one", "two"}


def test_it_ends_when_told() -> None:
    stop = threading.Event()
    stop.set()
    watch("127.0.0.1:1", ["one"], stop)
