"""One replica, without Ray: what it checks, how it slices, how it refuses."""

import asyncio
from collections.abc import Sequence

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from mambasearch.v1 import encoder_pb2

from encoder.errors import InvalidInput
from encoder.interface import Encoded, StreamingEncoder
from services.encoder_replica import EncoderReplica
from tests.fakes import VOCABULARY_SIZE, FakeEncoder


class Context:
    """Stands in for Ray Serve's."""

    def __init__(self, application: str | None = None) -> None:
        self._application = application
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing: dict[str, str | bytes] = {}

    def application(self) -> str | None:
        return self._application

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        self.trailing = dict(trailing_metadata)

    def field(self) -> str:
        bad_request = error_details_pb2.BadRequest()
        data = self.trailing["grpc-status-details-bin"]
        assert isinstance(data, bytes)
        assert any(detail.Unpack(bad_request) for detail in status_pb2.Status.FromString(data).details)
        return bad_request.field_violations[0].field


class SlicedEncoder(FakeEncoder):
    """Remembers how many texts came at once; refuses a text that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.slices: list[int] = []

    async def encode_tokenized_passages(self, passages: Sequence[Sequence[int]]) -> Encoded:
        self.slices.append(len(passages))
        return await super().encode_tokenized_passages(passages)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        self.slices.append(len(passages))
        for place, text in enumerate(passages):
            if text == "refuse me":
                raise InvalidInput(f"passages[{place}]", "It asked for it.")
            if text == "break me":
                raise RuntimeError(text)
        return await super().encode_passages(passages)


def make_replica(encoder: StreamingEncoder) -> EncoderReplica:
    return EncoderReplica(
        lambda: encoder, lambda: "encoder", waiting_max=4, documents_max=1, passages_per_turn=3, log_level="INFO"
    )


async def test_passages_are_encoded_in_slices_and_answered_in_order() -> None:
    encoder, context = SlicedEncoder(), Context("encoder")
    texts = [f"text {number}" for number in range(8)]
    answer = await make_replica(encoder).EncodePassages(encoder_pb2.EncodePassagesRequest(passages=texts), context)
    assert context.code is None
    assert encoder.slices == [3, 3, 2]
    expected = await FakeEncoder().encode_passages(texts)
    embeddings = np.frombuffer(answer.embeddings, dtype="<f4").reshape(8, answer.dimension)
    np.testing.assert_array_equal(embeddings, expected.embeddings)
    assert tuple(answer.token_counts) == expected.token_counts
    assert answer.fingerprint == "fake"
    assert answer.timings.encode_time_ms > 0


@pytest.mark.parametrize(
    ("texts", "field", "words"),
    [
        ([], "passages", "passages holds 0 texts; 1 to 1024"),
        (["word"] * 1025, "passages", "passages holds 1025 texts"),
        (["word", "\t"], "passages[1]", "empty or only white space"),
        (["word"] * 4 + ["refuse me"], "passages[4]", "It asked for it."),
    ],
)
async def test_bad_input_is_refused_by_its_place(texts: list[str], field: str, words: str) -> None:
    context = Context()
    request = encoder_pb2.EncodePassagesRequest(passages=texts)
    answer = await make_replica(SlicedEncoder()).EncodePassages(request, context)
    assert answer == encoder_pb2.EncodeResponse()
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.field() == field
    assert words in context.details


def token_request(rows: Sequence[Sequence[int]], texts: Sequence[str] = ()) -> encoder_pb2.EncodePassagesRequest:
    passages = [encoder_pb2.TokenizedPassage(token_ids=row) for row in rows]
    return encoder_pb2.EncodePassagesRequest(passages=texts, tokenized_passages=passages)


async def test_passages_come_as_token_ids_too() -> None:
    encoder, context = SlicedEncoder(), Context()
    rows = [[number, 7, number + 1] for number in range(8)]
    answer = await make_replica(encoder).EncodePassages(token_request(rows), context)
    assert context.code is None
    assert encoder.slices == [3, 3, 2]
    expected = await FakeEncoder().encode_tokenized_passages(rows)
    embeddings = np.frombuffer(answer.embeddings, dtype="<f4").reshape(8, answer.dimension)
    np.testing.assert_array_equal(embeddings, expected.embeddings)
    assert list(answer.token_counts) == [4] * 8


async def test_long_texts_are_fewer_in_a_turn() -> None:
    """Three passages of 256 tokens make a turn, or as many tokens of longer ones: queries wait for its end."""

    class Counting(SlicedEncoder):
        async def encode_queries(self, queries: Sequence[str]) -> Encoded:
            self.slices.append(len(queries))
            return await super().encode_queries(queries)

    encoder, context = Counting(), Context()
    rows = [[1] * length for length in (700, 60, 10, 5000, 1, 300, 300, 300)]
    await make_replica(encoder).EncodePassages(token_request(rows), context)
    assert encoder.slices == [2, 1, 1, 3, 1]
    encoder.slices.clear()
    texts = ["word " * 600] * 3 + ["word"] * 2
    await make_replica(encoder).EncodePassages(encoder_pb2.EncodePassagesRequest(passages=texts), context)
    assert encoder.slices == [1, 1, 3]
    encoder.slices.clear()
    queries = ["word " * 300] * 4 + ["word"] * 20
    await make_replica(encoder).EncodeQueries(encoder_pb2.EncodeQueriesRequest(queries=queries), context)
    assert encoder.slices == [2, 20, 2]
    assert context.code is None


@pytest.mark.parametrize(
    ("rows", "texts", "field", "words"),
    [
        ([[1], []], [], "tokenized_passages[1]", "tokenized_passages[1] is empty; give at least one token"),
        ([[1]] * 1025, [], "tokenized_passages", "tokenized_passages holds 1025"),
        ([[1]], ["word"], "tokenized_passages", "send one kind in one request"),
        ([[1]] * 4 + [[VOCABULARY_SIZE]], [], "tokenized_passages[4]", f"is {VOCABULARY_SIZE}"),
    ],
)
async def test_bad_token_ids_are_refused_by_their_place(
    rows: list[list[int]], texts: list[str], field: str, words: str
) -> None:
    context = Context()
    await make_replica(SlicedEncoder()).EncodePassages(token_request(rows, texts), context)
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.field() == field
    assert words in context.details


async def test_a_cancelled_request_reads_no_further_and_frees_its_turn() -> None:
    class Gated(SlicedEncoder):
        gate = asyncio.Event()

        async def encode_passages(self, passages: Sequence[str]) -> Encoded:
            encoded = await super().encode_passages(passages)
            await self.gate.wait()
            return encoded

    encoder = Gated()
    replica = make_replica(encoder)
    request = encoder_pb2.EncodePassagesRequest(passages=["word"] * 9)
    call = asyncio.ensure_future(replica.EncodePassages(request, Context()))
    await asyncio.sleep(0)
    assert encoder.slices == [3]
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    encoder.gate.set()
    context = Context()
    async with asyncio.timeout(5):
        await replica.EncodeQueries(encoder_pb2.EncodeQueriesRequest(queries=["word"]), context)
    assert context.code is None
    assert encoder.slices == [3]


async def test_a_failure_leaves_the_replica_working(caplog: pytest.LogCaptureFixture) -> None:
    replica, context = make_replica(SlicedEncoder()), Context()
    for _ in range(10):
        await replica.EncodePassages(encoder_pb2.EncodePassagesRequest(passages=["break me"]), context)
    assert context.code is grpc.StatusCode.INTERNAL
    assert "incident" in context.details
    assert "break me" not in context.details + caplog.text
    well = Context()
    await replica.EncodePassages(encoder_pb2.EncodePassagesRequest(passages=["word"]), well)
    assert well.code is None


async def test_a_call_for_another_application_is_not_answered() -> None:
    replica, context = make_replica(FakeEncoder()), Context("passage-encoder")
    answer = await replica.GetEncoderInfo(encoder_pb2.GetEncoderInfoRequest(), context)
    assert answer == encoder_pb2.EncoderInfo()
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert "no application 'passage-encoder' yet, only 'encoder'" in context.details


async def test_health() -> None:
    replica = make_replica(FakeEncoder())
    for service, code in (("", None), ("mambasearch.v1.EncoderService", None), ("x", grpc.StatusCode.NOT_FOUND)):
        context = Context()
        answer = await replica.Check(health_pb2.HealthCheckRequest(service=service), context)
        assert context.code is code
        assert (answer.status == health_pb2.HealthCheckResponse.SERVING) == (code is None)
