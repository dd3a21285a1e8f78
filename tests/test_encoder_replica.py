"""One replica, without Ray: what it checks, how it slices, how it refuses."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from mambasearch.v1 import encoder_pb2
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.interface import StreamingEncoder, TokenRow
from services.encoding.replica import EncoderReplica, ReplicaRules
from services.encoding.scheduler import Limits
from tests.fakes import VOCABULARY_SIZE, FakeEncoder

BREAK, POISON = -5, -6  # in place of a row's first token


class Context:
    """Stands in for Ray Serve's."""

    def __init__(self, application: str | None = None, authorization: str | None = None) -> None:
        self._application = application
        self._authorization = authorization
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing: dict[str, str | bytes] = {}

    def application(self) -> str | None:
        return self._application

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return [("authorization", self._authorization)] if self._authorization else []

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
    """Remembers how many texts came at once; refuses, breaks or is poisoned by a text that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.slices: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def passage_rows(self, passages: Sequence[str]) -> list[TokenRow]:
        rows = await super().passage_rows(passages)
        for place, text in enumerate(passages):
            if text == "refuse me":
                raise InvalidInput(f"passages[{place}]", "It asked for it.")
            if text.startswith(("break", "poison")):
                rows[place][0] = BREAK if text.startswith("break") else POISON
        return rows

    async def embed_passages(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        self.slices.append(len(rows))
        await self.gate.wait()
        if any(row[0] == BREAK for row in rows):
            raise RuntimeError(" ".join(("break", "me")))  # the log quotes lines of code
        embeddings = await super().embed_passages(rows)
        if any(row[0] == POISON for row in rows):
            embeddings[:] = np.nan  # a matrix product spreads it over the whole batch
        return embeddings

    async def embed_queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        self.slices.append(len(rows))
        return await super().embed_queries(rows)


def make_replica(encoder: StreamingEncoder, *, batch_tokens: int = 9, token: str | None = None) -> EncoderReplica:
    limits = Limits(batch_tokens=batch_tokens, requests_max=4, tokens_max=10_000, documents_max=1)
    return EncoderReplica(lambda: encoder, lambda: "encoder", ReplicaRules(limits, token))


async def test_passages_are_encoded_in_batches_and_answered_in_order() -> None:
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


async def test_small_requests_are_read_together() -> None:
    encoder = SlicedEncoder()
    replica = make_replica(encoder, batch_tokens=100)
    queries = [encoder_pb2.EncodeQueriesRequest(queries=[f"number {number}"]) for number in range(4)]
    answers = await asyncio.gather(*(replica.EncodeQueries(query, Context()) for query in queries))
    assert encoder.slices == [4]
    expected = await FakeEncoder().encode_queries([f"number {number}" for number in range(4)])
    assert b"".join(answer.embeddings for answer in answers) == expected.embeddings.tobytes()


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
    answer = await make_replica(encoder, batch_tokens=12).EncodePassages(token_request(rows), context)
    assert context.code is None
    assert encoder.slices == [3, 3, 2]
    expected = await FakeEncoder().encode_tokenized_passages(rows)
    embeddings = np.frombuffer(answer.embeddings, dtype="<f4").reshape(8, answer.dimension)
    np.testing.assert_array_equal(embeddings, expected.embeddings)
    assert list(answer.token_counts) == [4] * 8


async def test_what_is_longer_than_a_batch_is_read_in_pieces_after_the_others() -> None:
    encoder, context = SlicedEncoder(), Context()
    rows = [[1] * length for length in (700, 60, 10, 5000, 1, 300, 300, 300)]
    answer = await make_replica(encoder, batch_tokens=768).EncodePassages(token_request(rows), context)
    assert context.code is None
    assert encoder.slices == [2, 4, 1]
    expected = await FakeEncoder().encode_tokenized_passages(rows)
    embeddings = np.frombuffer(answer.embeddings, dtype="<f4").reshape(8, answer.dimension)
    np.testing.assert_array_equal(embeddings, expected.embeddings)
    assert list(answer.token_counts) == [len(row) + 1 for row in rows]


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


async def test_a_cancelled_request_reads_no_further() -> None:
    encoder = SlicedEncoder()
    encoder.gate.clear()
    replica = make_replica(encoder)
    request = encoder_pb2.EncodePassagesRequest(passages=["one word"] * 9)
    call = asyncio.ensure_future(replica.EncodePassages(request, Context()))
    await asyncio.sleep(0.01)
    assert encoder.slices == [3]
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    encoder.gate.set()
    context = Context()
    async with asyncio.timeout(5):
        await replica.EncodePassages(encoder_pb2.EncodePassagesRequest(passages=["one word"]), context)
    assert context.code is None
    assert encoder.slices == [3, 1]


async def test_a_request_whose_time_is_over_is_never_read() -> None:
    encoder = SlicedEncoder()
    encoder.gate.clear()
    replica = make_replica(encoder)
    request = encoder_pb2.EncodePassagesRequest(passages=["one word"])
    first = asyncio.ensure_future(replica.EncodePassages(request, Context()))
    await asyncio.sleep(0.01)
    context = Context()
    late = encoder_pb2.EncodePassagesRequest(passages=["late word"], time_left_ms=20)
    await replica.EncodePassages(late, context)
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "time was over before" in context.details
    encoder.gate.set()
    await first
    in_time = encoder_pb2.EncodePassagesRequest(passages=["word"] * 2, time_left_ms=9000)
    await replica.EncodePassages(in_time, Context())
    assert encoder.slices == [1, 2]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("poison pill", grpc.StatusCode.INVALID_ARGUMENT, "passages[2] has no embedding"),
        ("break me", grpc.StatusCode.INTERNAL, "incident"),
    ],
)
async def test_a_poisoned_text_fails_alone(text: str, code: grpc.StatusCode, words: str) -> None:
    encoder = SlicedEncoder()
    replica = make_replica(encoder, batch_tokens=1000)
    good = [[f"good {number}", f"better {number}"] for number in range(4)]
    lists = [*good[:2], ["fine", "well", text, "also"], *good[2:]]
    contexts = [Context() for _ in lists]
    requests = [encoder_pb2.EncodePassagesRequest(passages=texts) for texts in lists]
    answers = await asyncio.gather(*map(replica.EncodePassages, requests, contexts))
    assert [context.code for context in contexts] == [None, None, code, None, None]
    assert words in contexts[2].details
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        assert contexts[2].field() == "passages[2]"
    expected = await FakeEncoder().encode_passages(good[3])
    assert answers[4].embeddings == expected.embeddings.tobytes()
    assert encoder.slices[0] == 12
    assert len(encoder.slices) < 2 * 12


class NoStream:
    """A document's stream whose client closed it at once."""

    def __aiter__(self) -> AsyncIterator[encoder_pb2.EncodeDocumentRequest]:
        return self

    async def __anext__(self) -> encoder_pb2.EncodeDocumentRequest:
        raise StopAsyncIteration

    def is_cancelled(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("shown", "let_in"),
    [
        (None, False),
        ("Bearer wrong", False),
        ("correct horse battery", False),
        ("Bearer correct horse battery ", False),
        ("Bearer correct horse battery", True),
    ],
)
async def test_callers_show_the_token(shown: str | None, let_in: bool) -> None:
    replica = make_replica(FakeEncoder(), token="correct horse battery")
    code = None if let_in else grpc.StatusCode.UNAUTHENTICATED
    contexts = [Context(authorization=shown) for _ in range(5)]
    await replica.GetEncoderInfo(encoder_pb2.GetEncoderInfoRequest(), contexts[0])
    await replica.EncodeQueries(encoder_pb2.EncodeQueriesRequest(queries=["word"]), contexts[1])
    await replica.EncodePassages(encoder_pb2.EncodePassagesRequest(passages=["word"]), contexts[2])
    assert [context.code for context in contexts[:3]] == [code] * 3
    async for _ in replica.EncodeDocument(NoStream(), contexts[3]):
        pass
    assert (contexts[3].code is grpc.StatusCode.UNAUTHENTICATED) != let_in
    await replica.Check(health_pb2.HealthCheckRequest(), contexts[4])
    assert contexts[4].code is None, "health is open"
    assert all("horse" not in context.details for context in contexts)


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
