"""The encoder's client with token ids, against a replica behind a real gRPC server: passages and whole documents."""
# ruff: noqa: N802 - methods are named by the protocol

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status
from mambasearch.v1 import encoder_pb2, encoder_pb2_grpc

from encoder.client import EncoderClient
from encoder.client_requests import REQUEST_TOKENS_MAX
from encoder.errors import (
    EncoderUnavailable,
    FingerprintMismatch,
    InvalidInput,
    MambaSearchError,
    Overloaded,
    TimedOut,
)
from encoder.grpc_errors import status_of
from encoder.interface import DocumentReading, EncoderInfo, TokenRow
from tests.fakes import VOCABULARY_SIZE, FakeEncoder
from tests.replica_serving import Context, ReplicaServicer, serving

RANDOM = np.random.default_rng(5)


def document(length: int, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    ends = np.append(np.arange(chunk, length, chunk), length)
    return RANDOM.integers(0, VOCABULARY_SIZE, length), ends


@asynccontextmanager
async def client_of(encoder: FakeEncoder, **options: Any) -> AsyncIterator[EncoderClient]:
    async with serving(encoder) as served:
        client = EncoderClient(served.target, **options)
        try:
            yield client
        finally:
            await client.close()


async def test_a_document_over_the_wire_is_the_document_here() -> None:
    ids, ends = document(50_000, 300)
    async with client_of(FakeEncoder()) as client:
        there = await client.encode_document(ids, ends)
        kept = await client.encode_document(ids.tolist(), ends.tolist(), keep_state=True)
    here = await FakeEncoder().encode_document(ids, ends, keep_state=True)
    np.testing.assert_array_equal(there.embeddings, here.embeddings)
    np.testing.assert_array_equal(kept.embeddings, here.embeddings)
    assert there.token_count == kept.token_count == here.token_count == 50_000 + len(ends)
    assert (there.state, kept.state) == (None, here.state)


async def test_a_document_is_continued_with_its_last_chunk_cut_anew() -> None:
    ids, ends = document(3000, 250)
    async with client_of(FakeEncoder()) as client:
        begun = await client.encode_document(ids[:1100], [250, 500, 750, 1000, 1100], keep_state=True)
        rest = await client.encode_document(ids[1000:], ends[ends > 1000] - 1000, state=begun.state, keep_state=True)
        whole = await client.encode_document(ids, ends, keep_state=True)
    np.testing.assert_array_equal(np.concatenate([begun.embeddings[:4], rest.embeddings]), whole.embeddings)
    assert rest.state == whole.state
    alone = await FakeEncoder().encode_document(ids[1000:], ends[ends > 1000] - 1000)
    assert not np.allclose(alone.embeddings, rest.embeddings)


async def test_states_of_several_messages_go_both_ways() -> None:
    encoder = FakeEncoder(dimension=300_000)
    async with client_of(encoder) as client:
        begun = await client.encode_document([1, 2, 3], [1, 3], keep_state=True)
        assert begun.state is not None
        assert len(begun.state) > 2 * 1024 * 1024
        rest = await client.encode_document([2, 3, 4], [3], state=begun.state)
    whole = await encoder.encode_document([1, 2, 3, 4], [1, 4])
    np.testing.assert_array_equal(rest.embeddings, whole.embeddings[1:])


async def test_neither_side_waits_for_ever_where_both_have_much_to_send() -> None:
    ids, ends = document(60_000, 6)
    async with asyncio.timeout(60), client_of(FakeEncoder(dimension=512)) as client:
        encoded = await client.encode_document(ids, ends)  # 20 MB of embeddings
    assert encoded.embeddings.shape == (10_000, 512)


@pytest.mark.parametrize(
    ("ids", "ends", "state", "field", "words"),
    [
        ([], [], None, "token_ids", "has no tokens"),
        ([1, 2], [1], None, "token_ids[1]", "stands after the last chunk's end"),
        ([1, 2], [2, 2], None, "chunk_ends[1]", "must be above 2"),
        ([1] * 40_000 + [VOCABULARY_SIZE], [40_001], None, "token_ids[40000]", f"is {VOCABULARY_SIZE}"),
        ([1], [1], b"", "state", "state is empty"),
        ([1], [1], b"rubbish", "state", "no state"),
    ],
)
async def test_bad_documents_are_refused_by_their_place(
    ids: list[int], ends: list[int], state: bytes | None, field: str, words: str
) -> None:
    async with client_of(FakeEncoder()) as client:
        with pytest.raises(InvalidInput, match=words) as refusal:
            await client.encode_document(ids, ends, state=state)
    assert refusal.value.field == field


async def test_another_models_state_and_another_model_are_refused_with_both_names() -> None:
    foreign = await FakeEncoder(fingerprint="before").encode_document([1], [1], keep_state=True)
    encoder = FakeEncoder()
    async with client_of(encoder) as client:
        with pytest.raises(FingerprintMismatch, match="of model before, the encoder runs fake"):
            await client.encode_document([1], [1], state=foreign.state)
        encoder._info = EncoderInfo("fake", "after", 384, 512, 8192, 1024)
        with pytest.raises(FingerprintMismatch, match="meant for the model fake; this encoder runs after"):
            await client.encode_document([1], [1])


async def test_tokenized_passages_travel_in_parts_and_come_back_in_order() -> None:
    rows = [RANDOM.integers(0, VOCABULARY_SIZE, 1 + number * 37 % 5000).tolist() for number in range(150)]
    sizes: list[int] = []

    class Sized(FakeEncoder):
        async def token_rows(self, passages: Any) -> list[TokenRow]:
            sizes.append(sum(map(len, passages)))
            return await super().token_rows(passages)

    async with client_of(Sized()) as client:
        encoded = await client.encode_tokenized_passages(rows)
        with pytest.raises(InvalidInput, match=rf"passages\[300\].*{VOCABULARY_SIZE}") as refusal:
            await client.encode_tokenized_passages([[1]] * 300 + [[VOCABULARY_SIZE]])
        assert refusal.value.field == "passages[300]"
        fractions: Any = [1.5]
        for row, words in (
            ([], "is empty"),
            (fractions, "flat list of integers"),
            ([-1], "token id -1"),
            ([1] * 8193, "8193 tokens; the limit is 8192"),
        ):
            with pytest.raises(InvalidInput, match=words) as refusal:
                await client.encode_tokenized_passages([[1], row])
            assert refusal.value.field == "passages[1]"
    expected = await FakeEncoder().encode_tokenized_passages(rows)
    np.testing.assert_array_equal(encoded.embeddings, expected.embeddings)
    assert encoded.token_counts == expected.token_counts
    assert max(sizes) <= REQUEST_TOKENS_MAX
    assert len(sizes) > sum(map(len, rows)) // REQUEST_TOKENS_MAX


class Troubled(ReplicaServicer):
    """Takes some of a document, then fails as told, one trouble a call."""

    troubles: list[MambaSearchError | grpc.StatusCode]
    calls = 0

    async def EncodeDocument(self, requests: Any, context: Context) -> AsyncIterator[Any]:
        self.calls += 1
        if self.troubles:
            trouble = self.troubles.pop(0)
            yield encoder_pb2.EncodeDocumentResponse(embeddings=b"1234")
            if isinstance(trouble, MambaSearchError):
                await context.abort_with_status(rpc_status.to_status(status_of(trouble)))
            await context.abort(trouble, "told so")
        async for response in super().EncodeDocument(requests, context):
            yield response


@asynccontextmanager
async def troubled(
    *troubles: MambaSearchError | grpc.StatusCode, kind: type[Troubled] = Troubled
) -> AsyncIterator[tuple[Troubled, EncoderClient]]:
    async with serving(FakeEncoder()) as served:
        server, servicer = grpc.aio.server(), kind(served.replica)
        servicer.troubles = list(troubles)
        encoder_pb2_grpc.add_EncoderServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        client = EncoderClient(f"127.0.0.1:{port}", attempts_max=3)
        try:
            yield servicer, client
        finally:
            await client.close()
            await server.stop(None)


async def test_a_whole_document_is_sent_again_after_passing_trouble() -> None:
    ids, ends = document(40_000, 100)
    async with troubled(grpc.StatusCode.UNAVAILABLE, Overloaded("Full.", 0.01)) as (servicer, client):
        encoded = await client.encode_document(ids, ends)
    np.testing.assert_array_equal(encoded.embeddings, (await FakeEncoder().encode_document(ids, ends)).embeddings)
    assert servicer.calls == 3


async def test_a_refusal_in_the_midst_of_writing_is_told_as_it_is() -> None:
    async with client_of(FakeEncoder()) as client:
        for _ in range(20):
            with pytest.raises(InvalidInput, match="no state"):
                await client.encode_document([1] * 200_000, [200_000], state=b"rubbish")
            with pytest.raises(InvalidInput, match=r"token_ids\[0\] is 40000"):
                await client.encode_document([40_000] + [1] * 200_000, [200_001])


@pytest.mark.parametrize(
    ("troubles", "kind", "calls"),
    [
        ([Overloaded("Full.", 0.01)] * 9, Overloaded, 3),
        ([grpc.StatusCode.INTERNAL], EncoderUnavailable, 1),
        ([InvalidInput("token_ids[0]", "Bad.")], InvalidInput, 1),
    ],
)
async def test_attempts_are_bounded_and_lasting_trouble_is_told_at_once(
    troubles: list[MambaSearchError | grpc.StatusCode], kind: type[MambaSearchError], calls: int
) -> None:
    async with troubled(*troubles) as (servicer, client):
        with pytest.raises(kind):
            await client.encode_document([1], [1])
    assert servicer.calls == calls


class Stuck(FakeEncoder):
    async def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReading:
        await asyncio.sleep(60)
        raise AssertionError("somebody waited")


async def test_the_deadline_holds() -> None:
    async with client_of(Stuck(), timeout_s=0.3) as client:
        with pytest.raises(TimedOut, match="time"):
            await client.encode_document([1], [1])


async def test_an_answer_that_is_not_whole_is_no_answer() -> None:
    class Short(Troubled):
        async def EncodeDocument(self, requests: Any, context: Context) -> AsyncIterator[Any]:
            async for response in super().EncodeDocument(requests, context):
                if response.WhichOneof("part") != "embeddings":
                    yield response

    async with troubled(kind=Short) as (_, client):
        with pytest.raises(EncoderUnavailable, match="answered 0 floats and 0 bytes of state for 1 chunks"):
            await client.encode_document([1], [1])
