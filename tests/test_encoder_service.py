"""The encoder service in a real Ray Serve, with a fake model in its replicas, and a tiny real one."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mambasearch.v1 import encoder_pb2, encoder_pb2_grpc

from encoder.client import EncoderClient
from encoder.errors import (
    EncoderUnavailable,
    FingerprintMismatch,
    InvalidInput,
    Overloaded,
    TimedOut,
    Unauthenticated,
)
from tests.fake_encoder_service import READS, SLOW_TOKEN
from tests.fakes import VOCABULARY_SIZE, FakeEncoder
from tests.float32_encoder import load_float32
from tests.processes import alive, descendants, free_port, listening_addresses
from tests.tiny_model import save_tiny_model

ROOT = Path(__file__).parent.parent
QUEUED_MAX = 3
TOKEN = "a-token-of-this-test"
SLOW_PASSAGE = "slowly " + "word " * 50  # of which a batch holds one


class Service:
    def __init__(self, process: subprocess.Popen[str], port: int, ray_dir: Path, model: Path) -> None:
        self.process = process
        self.port = port
        self.ray_dir = ray_dir
        self.model = model

    def client(
        self,
        *,
        query: str = "query-encoder",
        passage: str = "passage-encoder",
        timeout_s: float = 20,
        attempts_max: int = 1,
    ) -> EncoderClient:
        return EncoderClient(
            f"127.0.0.1:{self.port}",
            query_application=query,
            passage_application=passage,
            timeout_s=timeout_s,
            attempts_max=attempts_max,
            concurrency_max=16,
            token=TOKEN,
        )


def metadata_for(application: str) -> tuple[tuple[str, str], ...]:
    return (("application", application), ("authorization", f"Bearer {TOKEN}"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    port = free_port()
    model = save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    ray_dir = Path(f"/tmp/mamba-test-{port}")
    environment = os.environ | {  # noqa: TID251 - for a child process
        "MAMBASEARCH_ENCODER_PORT": str(port),
        "MAMBASEARCH_ENCODER_MAX_QUEUED_REQUESTS": str(QUEUED_MAX),
        "MAMBASEARCH_ENCODER_MAX_ONGOING_REQUESTS": "16",
        "MAMBASEARCH_ENCODER_TOKEN": TOKEN,
        "MAMBASEARCH_ENCODER_DOCUMENTS_MAX": "1",
        "MAMBASEARCH_ENCODER_BATCH_TOKENS": "64",
        "MAMBASEARCH_RAY_DIR": str(ray_dir),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
    }
    command = [sys.executable, "-m", "tests.fake_encoder_service", str(model)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert any(line == "ready\n" for line in process.stdout)
        yield Service(process, port, ray_dir, model)
        process.terminate()


async def test_embeddings_are_the_replicas_own(service: Service) -> None:
    client = service.client()
    texts = [f"passage number {number}" for number in range(600)]
    encoded = await client.encode_passages(texts)
    expected = await FakeEncoder().encode_passages(texts)
    np.testing.assert_array_equal(encoded.embeddings, expected.embeddings)
    assert encoded.token_counts == expected.token_counts
    assert (await client.encode_queries(["number 7"])).embeddings.shape == (1, 384)
    info = await client.info()
    assert (info.fingerprint, info.dimension, info.batch_size_max) == ("q+p", 384, 1024)
    await client.close()


async def test_refusals_name_the_field_and_its_place(service: Service) -> None:
    client = service.client()
    with pytest.raises(InvalidInput, match="empty or only white space") as refusal:
        await client.encode_passages([*["word"] * 350, " "])
    assert refusal.value.field == "passages[350]"
    with pytest.raises(InvalidInput, match="the limit is 512") as refusal:
        await client.encode_queries(["word " * 600])
    assert refusal.value.field == "queries[0]"
    await client.close()


async def test_status_carries_field_violations(service: Service) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = encoder_pb2_grpc.EncoderServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.EncodeQueries(encoder_pb2.EncodeQueriesRequest(), metadata=metadata_for("query-encoder"))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(failure.value.trailing_metadata())["grpc-status-details-bin"]
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status_pb2.Status.FromString(details).details)
    assert bad_request.field_violations[0].field == "queries"
    assert failure.value.details() == bad_request.field_violations[0].description


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("mambasearch.v1.EncoderService/EncodeQueries", b"\x0a\x02\xff\xff"),  # a text that is no UTF-8
        ("mambasearch.v1.EncoderService/EncodePassages", b"\x0a\x7f"),
        ("mambasearch.v1.EncoderService/GetEncoderInfo", b"\xff"),
        ("mambasearch.v1.EncoderService/EncodeDocument", b"\x0a\x7f"),
        ("grpc.health.v1.Health/Check", b"\x0a\x7f"),
    ],
)
async def test_what_is_no_message_is_the_callers_fault(service: Service, method: str, data: bytes) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        metadata = metadata_for("query-encoder")
        call: Any
        if method.endswith("EncodeDocument"):
            stream = channel.stream_stream(f"/{method}", request_serializer=bytes)
            call = stream(iter([data]), metadata=metadata, timeout=20)
            # Serve sends a status after an empty response only.
            assert await call.read() == b""
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        else:
            call = channel.unary_unary(f"/{method}", request_serializer=bytes)(data, metadata=metadata, timeout=20)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await call.details()).startswith(f"The message of {len(data)} bytes cannot be read; ")


async def test_unforeseen_failures_show_an_incident_and_nothing_else(service: Service) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = encoder_pb2_grpc.EncoderServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.EncodeQueries(
                encoder_pb2.EncodeQueriesRequest(queries=["crash secret"]),
                metadata=metadata_for("query-encoder"),
            )
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert "incident" in failure.value.details()
    assert "secret" not in str(failure.value)
    logs = "".join(path.read_text(errors="replace") for path in service.ray_dir.rglob("*") if path.is_file())
    assert "incident" in logs
    assert "secret" not in logs


async def test_a_full_queue_refuses_with_a_delay_and_a_patient_client_gets_through(service: Service) -> None:
    hasty, patient = service.client(), service.client(attempts_max=10)
    slow = [asyncio.ensure_future(hasty.encode_queries(["slowly"])) for _ in range(QUEUED_MAX + 4)]
    outcomes = await asyncio.gather(*slow, patient.encode_queries(["quick"]), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert 1 <= len(refusals) <= 4
    assert all(0.1 <= refusal.retry_after_s <= 10 for refusal in refusals)
    assert all("queue of queries is full" in str(refusal) for refusal in refusals)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == len(outcomes) - len(refusals)
    assert not isinstance(outcomes[-1], BaseException)
    await hasty.close()
    await patient.close()


async def test_a_deadline_ends_the_wait(service: Service) -> None:
    client = service.client(timeout_s=0.3)
    await client.info()
    with pytest.raises(TimedOut):
        await client.encode_queries(["slowly"])
    await client.close()


async def test_a_changed_model_is_noticed(service: Service) -> None:
    client = service.client(query="passage-encoder")
    await client.info()
    client._infos["passage-encoder"] = await FakeEncoder(fingerprint="before").info()
    with pytest.raises(FingerprintMismatch, match="from before to p"):
        await client.encode_passages(["text"])
    await client.close()


async def test_a_document_is_a_stream_in_serve_too(service: Service) -> None:
    client = service.client()
    ids = np.random.default_rng(3).integers(SLOW_TOKEN + 1, VOCABULARY_SIZE, 100_000)
    ends = np.arange(500, 100_001, 500)
    begun = await client.encode_document(ids[:50_000], ends[:100], keep_state=True)
    rest = await client.encode_document(ids[49_500:], ends[99:] - 49_500, state=begun.state)
    whole = await FakeEncoder(fingerprint="p").encode_document(ids, ends)
    np.testing.assert_array_equal(np.concatenate([begun.embeddings[:99], rest.embeddings]), whole.embeddings)
    rows = [ids[:300].tolist(), ids[300:310].tolist()]
    tokenized = await client.encode_tokenized_passages(rows)
    np.testing.assert_array_equal(
        tokenized.embeddings, (await FakeEncoder().encode_tokenized_passages(rows)).embeddings
    )
    foreign = await FakeEncoder(fingerprint="q").encode_document([8], [1], keep_state=True)
    with pytest.raises(FingerprintMismatch, match="of model q, the encoder runs p"):
        await client.encode_document(ids, ends, state=foreign.state)
    ids[77_777] = VOCABULARY_SIZE
    with pytest.raises(InvalidInput, match=r"token_ids\[77777\] is 32768") as refusal:
        await client.encode_document(ids, ends)
    assert refusal.value.field == "token_ids[77777]"
    await client.close()


@pytest.mark.parametrize("ending", ["cancelled", "expired"])
@pytest.mark.parametrize("kind", ["passages", "document"])
async def test_a_call_that_ends_early_is_read_no_further(service: Service, kind: str, ending: str) -> None:
    client = service.client(timeout_s=1 if ending == "expired" else 60)

    async def reads() -> int:
        return (await client.encode_passages([READS])).token_counts[0]

    before = await reads()
    if kind == "document":
        slow = asyncio.ensure_future(client.encode_document([SLOW_TOKEN] * 64 * 256, [64 * 256]))
    else:
        slow = asyncio.ensure_future(client.encode_passages([SLOW_PASSAGE] * 64))
    if ending == "cancelled":
        while await reads() < before + 3:  # noqa: ASYNC110 - each asks the replica, and enters between slices
            await asyncio.sleep(0)
        if kind == "document":
            with pytest.raises(Overloaded, match="is reading 1 documents"):
                await client.encode_document([8], [1])
        slow.cancel()
    with pytest.raises((asyncio.CancelledError, TimedOut)):
        await slow
    await asyncio.sleep(0.3)
    stopped = await reads()
    assert before + 3 <= stopped < before + 60
    await asyncio.sleep(0.5)
    assert await reads() == stopped
    assert (await client.encode_document([8], [1])).embeddings.shape == (1, 384)
    await client.close()


async def test_a_real_models_document_is_the_same_over_serve(service: Service) -> None:
    client = service.client(query="local-encoder", passage="local-encoder")
    local = load_float32(service.model)
    ids = np.random.default_rng(4).integers(0, 30_000, 5000)
    ends = np.array([700, 1900, 1904, 4400, 5000])
    here = await local.encode_document(ids, ends)
    there = await client.encode_document(ids, ends)
    begun = await client.encode_document(ids[:1902], [700, 1900, 1902], keep_state=True)
    rest = await client.encode_document(ids[1900:], ends[2:] - 1900, state=begun.state)
    appended = np.concatenate([begun.embeddings[:2], rest.embeddings])
    assert there.token_count == here.token_count
    np.testing.assert_allclose(there.embeddings, here.embeddings, atol=1e-4)
    np.testing.assert_allclose(appended, here.embeddings, atol=1e-4)
    await client.close()
    await local.close()


async def test_health(service: Service) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        metadata = (("application", "passage-encoder"),)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), metadata=metadata)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"), metadata=metadata)
        assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_callers_without_the_token_are_refused_but_for_health(service: Service) -> None:
    for token in (None, "another-token-than-this"):
        client = EncoderClient(f"127.0.0.1:{service.port}", query_application="query-encoder", token=token)
        with pytest.raises(Unauthenticated, match="MAMBASEARCH_ENCODER_TOKEN"):
            await client.encode_queries(["word"])
        await client.close()
    assert await health_of(service, "query-encoder") == "SERVING"


async def health_of(service: Service, application: str) -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(), metadata=(("application", application),), timeout=10
            )
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def test_a_wedged_encoder_says_so_and_is_replaced(service: Service) -> None:
    client = service.client(timeout_s=2)
    with pytest.raises(TimedOut):
        await client.encode_queries(["wedge"])
    seen = set()
    async with asyncio.timeout(150):
        while "NOT_SERVING" not in seen:
            seen.add(await health_of(service, "query-encoder"))
            await asyncio.sleep(0.5)
        with pytest.raises(EncoderUnavailable):
            await client.info()
        assert await health_of(service, "passage-encoder") == "SERVING"
        while await health_of(service, "query-encoder") != "SERVING":  # noqa: ASYNC110 - asks the service
            await asyncio.sleep(0.5)
    await client.close()
    client = service.client()
    assert (await client.encode_queries(["word"])).embeddings.shape == (1, 384)
    await client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_listens_beyond_loopback_and_nothing_is_left(service: Service) -> None:
    ends = time.monotonic() + 30  # a replica that was wedged before has ten seconds to end, and ends them
    while True:
        pids = descendants(service.process.pid) | {service.process.pid}
        addresses = listening_addresses(pids)
        if len([port for name, port in addresses if name != "loopback"]) <= 3 or time.monotonic() > ends:
            break
        time.sleep(0.5)
    assert ("loopback", service.port) in addresses
    # Each replica's own port, which asks for the secret of this run.
    assert len([port for name, port in addresses if name != "loopback"]) <= 3
    service.process.terminate()
    assert service.process.wait(30) == 0
    assert not [pid for pid in pids if alive(pid)]
    assert not service.ray_dir.exists()
