"""EncodeDocument in a replica behind a real gRPC server: order, limits, lanes, cancellation, memory."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from mambasearch.v1 import encoder_pb2
from numpy.typing import NDArray

from encoder.document_slices import TokenIds
from encoder.errors import EncoderUnavailable, InvalidInput, MambaSearchError, Overloaded
from encoder.grpc_errors import error_of
from encoder.interface import DocumentReading, TokenRow
from services.encoding.document_stream import PART_BYTES_MAX, SPAN_TOKENS_MAX, encode_document
from services.encoding.hooks import Lane
from services.encoding.scheduler import Limits, Scheduler
from tests.fakes import VOCABULARY_SIZE, FakeEncoder, FakeReading
from tests.replica_serving import ServeLikeStream, serving

Request, Response = encoder_pb2.EncodeDocumentRequest, encoder_pb2.EncodeDocumentResponse


def begin(**fields: Any) -> Request:
    return Request(begin=encoder_pb2.BeginDocument(**fields))


def span(ids: Iterable[int], ends: Iterable[int] = ()) -> Request:
    return Request(span=encoder_pb2.TokenSpan(token_ids=ids, chunk_ends=ends))


class GatedReading(FakeReading):
    """Reads while the gate is open; counts the slices it was given."""

    gate: asyncio.Event
    reads = 0

    async def read(self, token_ids: TokenIds, chunk_ends: TokenIds) -> NDArray[np.float32]:
        self.reads += 1
        await self.gate.wait()
        return await super().read(token_ids, chunk_ends)


class GatedEncoder(FakeEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.readings: list[GatedReading] = []
        self.reads_before_query = 0

    async def embed_queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        self.reads_before_query = self.reads
        return await super().embed_queries(rows)

    async def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReading:
        reading = GatedReading(self._info, state, keep_state=keep_state)
        reading.gate = self.gate
        self.readings.append(reading)
        return reading

    @property
    def reads(self) -> int:
        return sum(reading.reads for reading in self.readings)


def make_scheduler(encoder: FakeEncoder) -> Scheduler:
    embed = {Lane.QUERIES: encoder.embed_queries, Lane.PASSAGES: encoder.embed_passages}
    limits = Limits(batch_tokens=8192, requests_max=1, tokens_max=10_000, documents_max=1)
    return Scheduler(embed, limits, side_by_side=False)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is inside the replica
            await asyncio.sleep(0.005)


async def failure_of(call: Any) -> MambaSearchError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async for _ in call:
            pass
    error = failure.value
    return error_of(
        error.code(),
        error.details() or "",
        tuple(error.trailing_metadata()),
        unavailable=EncoderUnavailable,
        service="the replica",
    )


async def test_embeddings_come_as_chunks_end_and_the_summary_last() -> None:
    async with serving(FakeEncoder()) as served:
        call = served.stub.EncodeDocument()
        await call.write(begin(fingerprint="fake"))
        await call.write(span([1, 2, 3, 4], [2, 3]))
        responses = aiter(call)
        first = await anext(responses)  # before the document's end
        await call.write(span([5], [1]))
        await call.done_writing()
        rest = [response async for response in responses]
    expected = await FakeEncoder().encode_document([1, 2, 3, 4, 5], [2, 3, 5])
    assert [response.WhichOneof("part") for response in rest] == ["embeddings", "summary"]
    rows = np.frombuffer(first.embeddings + rest[0].embeddings, dtype="<f4").reshape(3, 384)
    np.testing.assert_array_equal(rows, expected.embeddings)
    summary = rest[-1].summary
    assert (summary.chunk_count, summary.token_count, summary.state_bytes) == (3, 8, 0)
    assert (summary.dimension, summary.fingerprint) == (384, "fake")
    assert summary.timings.encode_time_ms > 0


@pytest.mark.parametrize(
    ("messages", "field", "words"),
    [
        ([], "begin", "first message holds nothing; begin must come first"),
        ([span([1], [1])], "begin", "first message holds span"),
        ([begin(), begin()], "begin", "holds begin where a span of tokens is expected"),
        ([begin(), Request()], "span", "holds nothing where a span"),
        ([begin(), Request(state=b"x")], "state", "holds state where a span"),
        ([begin()], "token_ids", "has no tokens"),
        ([begin(), span([])], "span", "holds 0 tokens; 1 to 65536"),
        ([begin(), span([1] * (SPAN_TOKENS_MAX + 1))], "span", "holds 65537 tokens"),
        ([begin(), span([1], [1, 1])], "span", "A span of 1 tokens holds 2 chunk ends"),
        ([begin(), span([1] * 5, [5]), span([1] * 5, [3])], "token_ids[8]", "with 10 tokens in all"),
        ([begin(), span([1] * 5, [5]), span([1] * 5, [3, 3])], "chunk_ends[2]", "is at 8 tokens .* above 8"),
        ([begin(), span([1] * 5, [5]), span([1, VOCABULARY_SIZE], [2])], "token_ids[6]", r"token_ids\[6\] is 32768"),
        ([begin(state_bytes=2**29 + 1)], "begin.state_bytes", "the limit is 536870912"),
        ([begin(state_bytes=4), span([1], [1])], "state", "0 bytes of the 4 announced; span followed"),
        ([begin(state_bytes=4), Request(state=b"abc")], "state", "3 bytes of the 4 announced; nothing followed"),
        ([begin(state_bytes=4), Request(state=b"abcde")], "state", "has 5 bytes; 1 to 4"),
        ([begin(state_bytes=4), Request(state=b"")], "state", "has 0 bytes; 1 to 4"),
        (
            [begin(state_bytes=2**22), Request(state=b"x" * (PART_BYTES_MAX + 1))],
            "state",
            "has 1048577 bytes; 1 to 1048576",
        ),
        ([begin(state_bytes=4), Request(state=b"abcd"), span([1], [1])], "state", "no state"),
    ],
)
async def test_what_is_out_of_order_or_over_a_limit_is_refused(messages: list[Request], field: str, words: str) -> None:
    async with serving(FakeEncoder()) as served:
        error = await failure_of(served.stub.EncodeDocument(iter(messages)))
        assert isinstance(error, InvalidInput)
        assert error.field == field
        with pytest.raises(InvalidInput, match=words):
            raise error
        assert await count_of_chunks(served.stub) == 1  # the replica works on


async def count_of_chunks(stub: Any) -> int:
    responses = [response async for response in stub.EncodeDocument(iter([begin(), span([1, 2], [2])]))]
    return int(responses[-1].summary.chunk_count)


async def test_large_states_and_embeddings_travel_in_parts() -> None:
    encoder = FakeEncoder(dimension=300_000)
    async with serving(encoder) as served:
        messages = [begin(keep_state=True), span([1, 2, 3, 4], [1, 2, 4])]
        answers = [response async for response in served.stub.EncodeDocument(iter(messages))]
    kinds = [answer.WhichOneof("part") for answer in answers]
    assert kinds == ["embeddings"] * 3 + ["state"] * 3 + ["summary"]
    assert all(len(answer.state) <= PART_BYTES_MAX for answer in answers)
    state = b"".join(answer.state for answer in answers)
    assert len(state) == answers[-1].summary.state_bytes > 2 * PART_BYTES_MAX
    assert state == (await encoder.encode_document([1, 2, 3, 4], [1, 2, 4], keep_state=True)).state


@pytest.mark.parametrize("ending", ["cancelled", "expired"])
async def test_a_call_that_ends_early_reads_no_further_and_frees_its_place(ending: str) -> None:
    encoder = GatedEncoder()
    async with serving(encoder, documents_max=1, batch_tokens=256) as served:
        messages = [begin(), span([1] * 2560, [2560])]
        call = served.stub.EncodeDocument(iter(messages), timeout=0.5 if ending == "expired" else None)
        await until(lambda: encoder.reads == 1)
        query = asyncio.ensure_future(served.stub.EncodeQueries(encoder_pb2.EncodeQueriesRequest(queries=["word"])))
        if ending == "cancelled":
            await asyncio.sleep(0.05)
            assert not query.done(), "the first piece is being read"
            call.cancel()
        assert await call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
        await until(lambda: served.replica._scheduler._documents == 0)
        encoder.gate.set()
        async with asyncio.timeout(5):
            await query
        assert await count_of_chunks(served.stub) == 1
        assert [reading.reads for reading in encoder.readings] == [1, 1]


async def test_a_query_enters_between_slices() -> None:
    encoder = GatedEncoder()
    async with serving(encoder, batch_tokens=256) as served:
        call = served.stub.EncodeDocument(iter([begin(), span([1] * 25600, [25600])]))
        await until(lambda: encoder.reads == 1)

        asked = served.stub.EncodeQueries(encoder_pb2.EncodeQueriesRequest(queries=["word"]))
        await until(lambda: served.replica.queue_state(Lane.QUERIES).requests == 1)
        encoder.gate.set()
        assert [response.WhichOneof("part") async for response in call][-1] == "summary"
        await asked
    assert encoder.reads == 100
    assert encoder.reads_before_query == 1


async def test_a_client_that_waits_holds_a_place_but_no_worker_and_not_for_ever() -> None:
    async with serving(FakeEncoder(), documents_max=1, idle_timeout_s=1.0) as served:
        idle = served.stub.EncodeDocument()
        await idle.write(begin())
        await idle.write(span([1, 2], [1]))
        responses = aiter(idle)
        assert (await anext(responses)).embeddings
        await served.stub.EncodeQueries(encoder_pb2.EncodeQueriesRequest(queries=["word"]))
        refusal = await failure_of(served.stub.EncodeDocument(iter([begin(), span([1], [1])])))
        assert isinstance(refusal, Overloaded)
        assert "is reading 1 documents, as many as it may" in str(refusal)
        assert refusal.retry_after_s == 1.0
        assert "No message of the document came for 1 s" in str(await failure_of(responses))
        assert await idle.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await count_of_chunks(served.stub) == 1


class PoisonedReading(FakeReading):
    """Gives nothing finite for the second chunk."""

    async def read(self, token_ids: TokenIds, chunk_ends: TokenIds) -> NDArray[np.float32]:
        embeddings = await super().read(token_ids, chunk_ends)
        embeddings[1:] = np.nan
        return embeddings


async def test_a_chunk_without_an_embedding_is_refused_by_its_place() -> None:
    class Poisoned(FakeEncoder):
        async def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReading:
            return PoisonedReading(self._info, state, keep_state=keep_state)

    async with serving(Poisoned()) as served:
        error = await failure_of(served.stub.EncodeDocument(iter([begin(), span([1, 2, 3], [1, 3])])))
        assert isinstance(error, InvalidInput)
        assert error.field == "chunk_ends[1]"
        assert "chunk_ends[1] ends has no embedding" in str(error)


class CountedStream(ServeLikeStream):
    """A document of spans made as they are taken."""

    def __init__(self, spans: int, *, broken: bool = False) -> None:
        super().__init__(self._messages(spans))
        self._broken = broken

    async def _messages(self, spans: int) -> AsyncIterator[Request]:
        yield begin()
        for _ in range(spans):
            yield span([5] * SPAN_TOKENS_MAX, range(256, SPAN_TOKENS_MAX + 1, 256))

    def is_cancelled(self) -> bool:
        return self._broken


async def test_nothing_is_read_ahead() -> None:
    encoder, stream = GatedEncoder(), CountedStream(16)
    encoder.gate.set()
    responses = encode_document(stream, encoder, make_scheduler(encoder), tokens_per_piece=8192)
    taken = [stream.taken async for _ in responses]
    # The message of begin and eight slices a span, each answered before the next is taken.
    assert taken[:128] == [2 + number // 8 for number in range(128)]


async def test_a_million_tokens_need_no_more_memory_than_few() -> None:
    peaks = []
    for spans in (2, 16):
        tracemalloc.start()
        encoder = FakeEncoder()
        async for _ in encode_document(CountedStream(spans), encoder, make_scheduler(encoder), tokens_per_piece=8192):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1


async def test_a_stream_that_broke_off_is_no_end_of_a_document() -> None:
    encoder = FakeEncoder()
    scheduler, stream = make_scheduler(encoder), CountedStream(1, broken=True)
    with pytest.raises(EncoderUnavailable, match="broke off"):
        async for _ in encode_document(stream, encoder, scheduler, tokens_per_piece=8192):
            pass
    with scheduler.document():
        pass
