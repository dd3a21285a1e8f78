"""What a replica tells of its queue, its batches and its GPU."""

import asyncio
import pickle
import sys
import threading
from types import SimpleNamespace

import grpc
import pytest
from mambasearch.v1 import encoder_pb2
from prometheus_client import CollectorRegistry, generate_latest

from services.encoder_service import replica_observing
from services.encoding.observed import ObservedReplica
from services.encoding.replica import ReplicaRules
from services.encoding.scheduler import Limits
from services.observing.encoder_metrics import EncoderMetrics
from services.settings import EncoderSettings
from tests.fakes import FakeEncoder


class Context:
    """Ray Serve's context."""

    def __init__(self, *, application: str | None = None) -> None:
        self.code: grpc.StatusCode | None = None
        self._application = application

    def application(self) -> str | None:
        return self._application

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return [("x-request-id", "abc")]

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        pass

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        pass


def observed_replica() -> ObservedReplica:
    limits = Limits(batch_tokens=64, requests_max=4, tokens_max=1000, documents_max=1)
    observing = pickle.loads(pickle.dumps(replica_observing(EncoderSettings())))  # as it travels to the replica
    return ObservedReplica(observing, FakeEncoder, lambda: "encoder", ReplicaRules(limits, None))


async def told(replica: ObservedReplica) -> str:
    """Scrape as Prometheus does: from another thread."""
    return (await asyncio.to_thread(generate_latest, replica.observed.registry)).decode()


async def test_batches_and_the_queue_are_told() -> None:
    replica = observed_replica()
    assert "mambasearch_serving 0.0" in await told(replica)
    await replica.EncodeQueries(encoder_pb2.EncodeQueriesRequest(queries=["two words", "and three more"]), Context())
    await replica.GetEncoderInfo(encoder_pb2.GetEncoderInfoRequest(), Context())
    found = await told(replica)
    assert 'mambasearch_requests_total{code="OK",method="EncoderService/EncodeQueries"} 1.0' in found
    assert 'mambasearch_encoder_queue_requests{lane="queries"} 0.0' in found
    assert 'mambasearch_encoder_queue_oldest_seconds{lane="passages"} 0.0' in found
    assert 'mambasearch_encoder_requests_ended_total{lane="queries",outcome="done"} 2.0' in found, "one is the canary's"
    assert 'mambasearch_encoder_batch_texts_sum{lane="queries"} 3.0' in found
    assert "mambasearch_serving 1.0" in found
    tokens = float(found.partition('mambasearch_encoder_tokens_total{lane="queries"} ')[2].split()[0])
    fill = float(found.partition('mambasearch_encoder_batch_fill_ratio_sum{lane="queries"} ')[2].split()[0])
    assert tokens >= 7
    assert fill == pytest.approx(tokens / 64)


async def test_refusals_are_told_by_their_status() -> None:
    replica, context = observed_replica(), Context(application="another")
    await replica.EncodePassages(encoder_pb2.EncodePassagesRequest(passages=["x"]), context)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    found = await told(replica)
    assert 'mambasearch_requests_total{code="UNAVAILABLE",method="EncoderService/EncodePassages"} 1.0' in found


async def test_a_stuck_event_loop_leaves_the_queue_out_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.encoding.counting._LOOK_TIMEOUT_S", 0.05)
    replica = observed_replica()
    await replica.GetEncoderInfo(encoder_pb2.GetEncoderInfoRequest(), Context())
    found: list[str] = []
    scraping = threading.Thread(target=lambda: found.append(generate_latest(replica.observed.registry).decode()))
    scraping.start()
    scraping.join()  # and meanwhile the loop does nothing else
    assert "mambasearch_encoder_queue_requests{" not in found[0]
    assert 'mambasearch_requests_total{code="OK",method="EncoderService/GetEncoderInfo"} 1.0' in found[0]


def test_the_memory_of_a_gpu_is_told_where_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    EncoderMetrics(registry)
    assert "gpu_memory_bytes{" not in generate_latest(registry).decode()
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 2,
        mem_get_info=lambda gpu: (30, 100),
        memory_reserved=lambda gpu: 50 * gpu,
        memory_allocated=lambda gpu: 40 * gpu,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    found = generate_latest(registry).decode()
    for kind, count in {"allocated": 40, "reserved": 50, "used": 70, "total": 100}.items():
        assert f'mambasearch_encoder_gpu_memory_bytes{{gpu="1",kind="{kind}"}} {count}.0' in found
    assert 'gpu="0"' not in found, "of a GPU that this replica has nothing on, others tell"
