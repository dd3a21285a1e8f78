"""The benchmark's clients of passages: they send what the product's own client sends, and count what is answered."""

import time
from typing import Any

import numpy as np
from mambasearch.v1 import encoder_pb2

from encoder.client_requests import REQUEST_TEXTS_MAX
from encoder.errors import Overloaded
from encoder.interface import TokenRow
from tests.benchmarks.load.passages import _send, requests_of_ids, requests_of_texts
from tests.fakes import FakeEncoder
from tests.replica_serving import serving

TEXTS = [f"passage number {number}" for number in range(REQUEST_TEXTS_MAX + 10)]


def test_requests_hold_all_passages_in_order() -> None:
    texts = [encoder_pb2.EncodePassagesRequest.FromString(data) for data in requests_of_texts(TEXTS)]
    assert [text for request in texts for text in request.passages] == TEXTS
    rows = [np.arange(1 + number % 5, dtype=np.int32) for number in range(len(TEXTS))]
    written = [encoder_pb2.EncodePassagesRequest.FromString(data) for data in requests_of_ids(rows)]
    found = [list(passage.token_ids) for request in written for passage in request.tokenized_passages]
    assert found == [row.tolist() for row in rows]
    assert len(texts) == len(written) == 2


async def test_tokens_are_counted_of_what_is_sent_in_time_and_refusals_are_sent_again() -> None:
    class Full(FakeEncoder):
        calls = tokens = 0

        async def passage_rows(self, passages: Any) -> list[TokenRow]:
            self.calls += 1
            if self.calls == 2:
                raise Overloaded("Full.", 0.01)
            rows = await super().passage_rows(passages)
            self.tokens += sum(map(len, rows))
            return rows

    encoder, requests = Full(), requests_of_texts(TEXTS)
    async with serving(encoder) as served:
        begin = time.monotonic()
        found = await _send(served.target, requests, 0, "", 2, begin, begin + 0.5)
    assert found.refused == 1
    assert found.ended >= begin
    assert encoder.calls > len(requests) + found.refused
    assert found.tokens == encoder.tokens
