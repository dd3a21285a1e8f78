"""The encoder's client against a real gRPC server that answers as it is told."""
# ruff: noqa: N802 - methods are named by the protocol

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status
from mambasearch.v1 import encoder_pb2, encoder_pb2_grpc

from encoder.client import EncoderClient, joint_fingerprint
from encoder.client_requests import REQUEST_BYTES_MAX, REQUEST_TEXTS_MAX, TEXT_BYTES_MAX
from encoder.errors import (
    EncoderUnavailable,
    FingerprintMismatch,
    InvalidInput,
    MambaSearchError,
    Overloaded,
    TimedOut,
)
from encoder.grpc_errors import status_of
from tests.fakes import FakeEncoder
from tests.processes import free_port

Context = grpc.aio.ServicerContext[Any, Any]


class Servicer(encoder_pb2_grpc.EncoderServiceServicer):
    """Answers like the encoder service; ``before`` may refuse, given the number of the call and the texts."""

    def __init__(self, before: Callable[[int, list[str]], MambaSearchError | grpc.StatusCode | float | None]) -> None:
        self.before = before
        self.encoder = FakeEncoder()
        self.calls: list[list[str]] = []
        self.applications: list[str] = []
        self.times_left_ms: list[int] = []
        self.authorizations: list[str | bytes | None] = []
        self.running = self.running_max = 0

    async def GetEncoderInfo(self, request: encoder_pb2.GetEncoderInfoRequest, context: Context) -> Any:
        info = await self.encoder.info()
        return encoder_pb2.EncoderInfo(
            model=info.model,
            fingerprint=info.fingerprint,
            dimension=info.dimension,
            query_tokens_max=info.query_tokens_max,
            passage_tokens_max=info.passage_tokens_max,
            batch_size_max=info.batch_size_max,
        )

    async def EncodeQueries(self, request: encoder_pb2.EncodeQueriesRequest, context: Context) -> Any:
        self.times_left_ms.append(request.time_left_ms)
        self.authorizations.append(dict(context.invocation_metadata() or ()).get("authorization"))
        return await self.answer(list(request.queries), context)

    async def EncodePassages(self, request: encoder_pb2.EncodePassagesRequest, context: Context) -> Any:
        return await self.answer(list(request.passages), context)

    async def answer(self, texts: list[str], context: Context) -> Any:
        self.applications.append(str(dict(context.invocation_metadata() or ())["application"]))
        self.calls.append(texts)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            match self.before(len(self.calls), texts):
                case MambaSearchError() as refusal:
                    await context.abort_with_status(rpc_status.to_status(status_of(refusal)))
                case grpc.StatusCode() as code:
                    await context.abort(code, "told so")
                case float() as delay_s:
                    await asyncio.sleep(delay_s)
            encoded = await self.encoder.encode_passages(texts)
        finally:
            self.running -= 1
        return encoder_pb2.EncodeResponse(
            embeddings=encoded.embeddings.astype("<f4").tobytes(),
            dimension=384,
            token_counts=encoded.token_counts,
            fingerprint="fake",
        )


@asynccontextmanager
async def serving(
    before: Callable[[int, list[str]], MambaSearchError | grpc.StatusCode | float | None], **options: Any
) -> AsyncIterator[tuple[Servicer, EncoderClient]]:
    server, servicer = grpc.aio.server(), Servicer(before)
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = EncoderClient(f"127.0.0.1:{port}", **options)
    try:
        yield servicer, client
    finally:
        await client.close()
        await server.stop(None)


async def test_long_lists_travel_in_parts_and_come_back_in_order() -> None:
    texts = [f"text {number} " + "x" * (number % 7) * 9000 for number in range(300)]
    async with serving(lambda *_: 0.001, concurrency_max=3) as (servicer, client):
        encoded = await client.encode_passages(texts)
    expected = await FakeEncoder().encode_passages(texts)
    np.testing.assert_array_equal(encoded.embeddings, expected.embeddings)
    assert encoded.token_counts == expected.token_counts
    assert sorted(text for call in servicer.calls for text in call) == sorted(texts)
    assert all(len(call) <= REQUEST_TEXTS_MAX for call in servicer.calls)
    assert all(sum(map(len, call)) <= REQUEST_BYTES_MAX for call in servicer.calls)
    assert 1 < servicer.running_max <= 3


async def test_a_text_longer_than_a_request_travels_alone() -> None:
    async with serving(lambda *_: None) as (servicer, client):
        await client.encode_passages(["short", "x" * (REQUEST_BYTES_MAX + 1), "short too"])
        assert [len(call) for call in servicer.calls] == [1, 1, 1]
        with pytest.raises(InvalidInput, match="the limit is 3145728") as refusal:
            await client.encode_passages(["short", "x" * (TEXT_BYTES_MAX + 1)])
    assert refusal.value.field == "passages[1]"
    assert len(servicer.calls) == 3


async def test_a_refused_text_is_named_by_its_place_in_the_whole_list() -> None:
    def refuse(_: int, texts: list[str]) -> MambaSearchError | None:
        return InvalidInput(f"passages[{texts.index('bad')}]", "That is bad.") if "bad" in texts else None

    async with serving(refuse) as (_, client):
        with pytest.raises(InvalidInput, match="That is bad") as refusal:
            await client.encode_passages(["good"] * 300 + ["bad"] + ["good"] * 100)
    assert refusal.value.field == "passages[300]"


@pytest.mark.parametrize(
    "trouble", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded("Full.", 0.3)]
)
async def test_passing_trouble_is_ridden_out(trouble: MambaSearchError | grpc.StatusCode) -> None:
    times: list[float] = []

    def refuse(call: int, _: list[str]) -> MambaSearchError | grpc.StatusCode | None:
        times.append(asyncio.get_running_loop().time())
        return trouble if call <= 2 else None

    async with serving(refuse) as (servicer, client):
        assert (await client.encode_queries(["words"])).token_counts == (2,)
    assert len(servicer.calls) == 3
    if isinstance(trouble, Overloaded):
        assert times[1] - times[0] >= trouble.retry_after_s


async def test_attempts_are_bounded() -> None:
    async with serving(lambda *_: Overloaded("Full.", 0.01), attempts_max=3) as (servicer, client):
        with pytest.raises(Overloaded, match="Full"):
            await client.encode_queries(["words"])
    assert len(servicer.calls) == 3


async def test_a_delay_beyond_the_deadline_is_not_waited_for() -> None:
    async with serving(lambda *_: Overloaded("Full.", 60.0), timeout_s=5) as (servicer, client):
        async with asyncio.timeout(2):
            with pytest.raises(Overloaded, match="Full"):
                await client.encode_queries(["words"])
    assert len(servicer.calls) == 1


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (grpc.StatusCode.INTERNAL, EncoderUnavailable),
        (InvalidInput("queries[0]", "Bad."), InvalidInput),
        (TimedOut("Slow."), TimedOut),
    ],
)
async def test_lasting_trouble_is_told_at_once(
    trouble: MambaSearchError | grpc.StatusCode, kind: type[MambaSearchError]
) -> None:
    async with serving(lambda *_: trouble) as (servicer, client):
        with pytest.raises(kind):
            await client.encode_queries(["words"])
    assert len(servicer.calls) == 1


async def test_the_deadline_holds() -> None:
    async with serving(lambda *_: 30.0, timeout_s=0.2) as (_, client):
        with pytest.raises(TimedOut, match="gave no answer in time"):
            await client.encode_queries(["words"])


async def test_the_service_is_told_the_time_left_and_the_token() -> None:
    async with serving(lambda *_: Overloaded("Full.", 0.3), attempts_max=2, timeout_s=5, token="secret") as (
        servicer,
        client,
    ):
        with pytest.raises(Overloaded):
            await client.encode_queries(["words"])
    first, second = servicer.times_left_ms
    assert 4000 < second <= first - 200 <= 4800
    assert servicer.authorizations == ["Bearer secret"] * 2


async def test_one_failure_ends_the_others() -> None:
    def refuse(_: int, texts: list[str]) -> MambaSearchError | float:
        return InvalidInput("passages[0]", "Bad.") if texts[0] == "0" else 30.0

    async with serving(refuse) as (servicer, client):
        async with asyncio.timeout(5):
            with pytest.raises(InvalidInput):
                await client.encode_passages([str(number) for number in range(200)])
            while servicer.running:  # noqa: ASYNC110 - until the server has seen the cancellations
                await asyncio.sleep(0.01)


async def test_nobody_there() -> None:
    client = EncoderClient(f"127.0.0.1:{free_port()}", attempts_max=2)
    with pytest.raises(EncoderUnavailable, match="cannot be reached"):
        await client.info()
    await client.close()


async def test_each_role_asks_its_application_and_dimensions_must_agree() -> None:
    options = {"query_application": "q", "passage_application": "p"}
    async with serving(lambda *_: None, **options) as (servicer, client):
        await client.encode_queries(["words"])
        await client.encode_passages(["words"])
        assert servicer.applications == ["q", "p"]
        assert (await client.info()).fingerprint == "fake"  # one model behind both
        infos = iter([384, 8])
        servicer.encoder.info = lambda: FakeEncoder(dimension=next(infos)).info()  # type: ignore[method-assign]
        with pytest.raises(FingerprintMismatch, match=r"length 384 .* length 8"):
            await client.info()


@pytest.mark.parametrize("texts", [[], ["\ud800"]])
async def test_what_cannot_be_sent_is_refused_here(texts: list[str]) -> None:
    async with serving(lambda *_: None) as (servicer, client):
        with pytest.raises(InvalidInput, match="queries"):
            await client.encode_queries(texts)
    assert servicer.calls == []


def test_two_models_make_one_fingerprint() -> None:
    assert joint_fingerprint("a", "a") == "a"
    assert joint_fingerprint("a", "b") == "a+b"
