"""A query encoder in the search service's process, beside a real encoder service."""

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.client import EncoderClient
from encoder.errors import (
    EncoderUnavailable,
    FingerprintMismatch,
    InvalidInput,
    MambaSearchError,
    Overloaded,
    TimedOut,
)
from encoder.interface import Encoded, EncodedDocument, TokenRow
from services.encoding import local_queries
from services.encoding.local_queries import LocalQueries, encodes_here
from services.encoding.scheduler import Limits
from services.settings import SearchSettings
from tests.fakes import FakeEncoder
from tests.replica_serving import serving

LIMITS = Limits(batch_tokens=64, requests_max=2, tokens_max=1000, documents_max=0)


class GatedEncoder(FakeEncoder):
    """Counts the rows of each batch, waits where it is told to, and knows no embedding for ``poison``."""

    def __init__(self, fingerprint: str = "fake") -> None:
        super().__init__(fingerprint=fingerprint)
        self.batches: list[int] = []
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.factor = 1.0

    async def embed_queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        self.batches.append(len(rows))
        self.begun.set()
        await self.open.wait()
        embeddings = self.factor * await super().embed_queries(rows)
        (poison,) = await self.query_rows(["poison"])
        for place, row in enumerate(rows):
            if np.array_equal(row, poison):
                embeddings[place] = np.nan
        return embeddings.astype(np.float32)


def run(test: Callable[[GatedEncoder, LocalQueries, Any], Any], *, ours: str = "fake", timeout_s: float = 20.0) -> None:
    """Run a test with queries embedded here, and a service whose model is called fake."""

    async def go() -> None:
        queries = GatedEncoder(ours)
        async with serving(FakeEncoder()) as served:
            service = EncoderClient(served.target, timeout_s=2.0, attempts_max=1)
            encoder = LocalQueries(queries, service, LIMITS, timeout_s=timeout_s)
            try:
                await test(queries, encoder, served)
            finally:
                queries.open.set()
                await encoder.close()

    asyncio.run(go())


def same(found: Encoded | EncodedDocument, expected: Encoded | EncodedDocument) -> None:
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)


def test_queries_are_embedded_here_and_passages_by_the_service() -> None:
    async def test(queries: GatedEncoder, encoder: LocalQueries, _: object) -> None:
        fake = FakeEncoder()
        found = await encoder.encode_queries(["two words", "three more words"])
        assert queries.batches == [2]
        assert found.token_counts == (3, 4)
        np.testing.assert_array_equal(
            found.embeddings, (await fake.encode_queries(["two words", "three more words"])).embeddings
        )
        passages = await encoder.encode_passages(["a passage"])
        np.testing.assert_array_equal(passages.embeddings, (await fake.encode_passages(["a passage"])).embeddings)
        tokens = await encoder.encode_tokenized_passages([[3, 4, 5]])
        np.testing.assert_array_equal(tokens.embeddings, (await fake.encode_tokenized_passages([[3, 4, 5]])).embeddings)
        document = await encoder.encode_document([3, 4, 5, 6], [2, 4])
        np.testing.assert_array_equal(
            document.embeddings, (await fake.encode_document([3, 4, 5, 6], [2, 4])).embeddings
        )
        assert queries.batches == [2]

    run(test)


def test_queries_that_come_together_are_read_together_and_one_too_many_is_refused() -> None:
    async def test(queries: GatedEncoder, encoder: LocalQueries, _: object) -> None:
        queries.open.clear()
        first = asyncio.ensure_future(encoder.encode_queries(["first"]))
        await queries.begun.wait()
        later = [asyncio.ensure_future(encoder.encode_queries([f"later {number}"])) for number in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="queue of queries is full") as refused:
            await encoder.encode_queries(["one more"])
        assert refused.value.retry_after_s > 0
        queries.open.set()
        await asyncio.gather(first, *later)
        assert queries.batches == [1, 2]

    run(test)


def test_a_query_without_an_embedding_fails_alone_and_a_late_one_is_told_so() -> None:
    async def poisoned(queries: GatedEncoder, encoder: LocalQueries, _: object) -> None:
        queries.open.clear()
        first = asyncio.ensure_future(encoder.encode_queries(["first"]))
        await queries.begun.wait()
        ill, well = (asyncio.ensure_future(encoder.encode_queries([text])) for text in ("poison", "well"))
        await asyncio.sleep(0.01)
        queries.open.set()
        with pytest.raises(InvalidInput, match=r"queries\[0\] has no embedding"):
            await ill
        assert (await well).embeddings.shape == (1, 384)
        await first
        with pytest.raises(InvalidInput, match=r"queries\[1\]"):
            await encoder.encode_queries(["well", " "])

    async def late(queries: GatedEncoder, encoder: LocalQueries, _: object) -> None:
        queries.open.clear()
        with pytest.raises(TimedOut):
            await encoder.encode_queries(["late"])

    run(poisoned)
    run(late, timeout_s=0.05)


def test_searching_goes_on_while_the_service_is_away() -> None:
    async def test(_: GatedEncoder, encoder: LocalQueries, served: Any) -> None:
        known = await encoder.info()
        assert known.fingerprint == "fake"
        await served.server.stop(0)
        assert await encoder.info() == known
        assert len((await encoder.encode_queries(["still here"])).embeddings) == 1
        with pytest.raises(EncoderUnavailable):
            await encoder.encode_passages(["nobody there"])

    run(test)


def test_the_service_is_needed_once() -> None:
    async def test(_: GatedEncoder, encoder: LocalQueries, served: Any) -> None:
        await served.server.stop(0)
        with pytest.raises(EncoderUnavailable):
            await encoder.info()

    run(test)


def test_another_model_than_the_services_is_refused() -> None:
    async def test(_: GatedEncoder, encoder: LocalQueries, __: object) -> None:
        with pytest.raises(FingerprintMismatch, match=r"query_model has the fingerprint other.* with fake"):
            await encoder.info()

    run(test, ours="other")


def test_a_model_that_embeds_otherwise_than_at_the_start_is_unwell() -> None:
    async def test(queries: GatedEncoder, encoder: LocalQueries, _: object) -> None:
        await encoder.info()
        queries.factor = -1.0
        encoder._canary._probed_at = -float("inf")  # as if its period were over
        with pytest.raises(EncoderUnavailable, match="does not embed"):
            await encoder.info()

    run(test)


@pytest.mark.parametrize(
    ("settings", "has_torch", "has_gpu", "expected"),
    [
        ({}, True, False, True),
        ({}, True, True, False),
        ({}, False, False, False),
        ({"encoder_device": "cpu"}, True, True, True),
        ({"encoder_device": "cuda:1"}, True, True, False),
        ({"encoder_target": "encoder.example:9000"}, True, False, False),
        ({"query_encoder": "service"}, True, False, False),
        ({"query_encoder": "local", "encoder_target": "encoder.example:9000"}, True, True, True),
    ],
)
def test_queries_are_embedded_here_where_the_service_has_no_gpu(
    settings: dict[str, object], has_torch: bool, has_gpu: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        local_queries, "find_spec", lambda _: importlib.util.find_spec("asyncio") if has_torch else None
    )
    monkeypatch.setattr(local_queries, "_sees_gpu", lambda: has_gpu)
    assert encodes_here(SearchSettings.load(settings)) is expected


def test_without_torch_local_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_queries, "find_spec", lambda _: None)
    with pytest.raises(MambaSearchError, match=r"install mamba-search\[encoder\]"):
        encodes_here(SearchSettings.load({"query_encoder": "local"}))
