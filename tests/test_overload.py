"""Many more searches at once than the parts take: each has an answer, or is told that it is too many, and when to come.

All parts are real processes; only the model is faked.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc

from services.index_owner import CALLS_MAX
from tests.observing.parts import Parts, running

SEARCHES = 600
STOPPED_S = 2.0
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
MODES = (search_pb2.SEARCH_MODE_SPARSE, search_pb2.SEARCH_MODE_HYBRID)


# A few places: clients have more calls on a connection than the search service takes. Many, and an index owner that
# does not come to them for a while: so has the search service on its connection to the owner.
@pytest.mark.parametrize(("connections", "places"), [(1, 8), (5, CALLS_MAX + 100)])
async def test_overload_is_waiting_or_an_honest_refusal(tmp_path: Path, connections: int, places: int) -> None:
    settings = {"search_concurrency_max": places, "tenant_share": 1, "http_port": 0}
    async with running(tmp_path, settings) as parts:
        await _ingest(parts)
        channels = [
            grpc.aio.insecure_channel(parts.target("search"), options=OWN_CONNECTION) for _ in range(connections)
        ]
        stubs = [search_pb2_grpc.SearchServiceStub(channel) for channel in channels]
        before = await stubs[0].Search(search_pb2.SearchRequest(query="apples"), timeout=30)
        for _ in range(3):
            outcomes = await _search_at_once(stubs, parts.pids["index"])
            assert set(outcomes) <= {"OK", "RESOURCE_EXHAUSTED"}, outcomes
            assert outcomes.total() == SEARCHES
            assert outcomes["OK"] >= places
        after = await stubs[0].Search(search_pb2.SearchRequest(query="apples"), timeout=30)
        assert [hit.document_id for hit in before.hits] == [hit.document_id for hit in after.hits] == ["orchard"]
        for channel in channels:
            await channel.close()


async def _ingest(parts: Parts) -> None:
    async with grpc.aio.insecure_channel(parts.target("ingest")) as channel:
        request = ingest_pb2.IngestDocumentsRequest(document_id="orchard", text="Apples want cold winters.")
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        answers = [answer async for answer in stub.IngestDocuments(iter([request]), timeout=60)]
    assert [answer.outcome for answer in answers] == [ingest_pb2.INGEST_OUTCOME_INGESTED]


async def _search_at_once(stubs: Sequence[search_pb2_grpc.SearchServiceStub], owner: int) -> Counter[str]:
    """Send all searches at once, to an owner that is stopped; count the statuses, those without their due apart."""
    os.kill(owner, signal.SIGSTOP)
    calls = [
        stubs[number % len(stubs)].Search(
            search_pb2.SearchRequest(query="apples", mode=MODES[number // len(stubs) % 2]), timeout=60
        )
        for number in range(SEARCHES)
    ]
    answers = asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(STOPPED_S)
    os.kill(owner, signal.SIGCONT)
    return Counter(map(_outcome, await answers))


def _outcome(answer: search_pb2.SearchResponse | BaseException) -> str:
    if isinstance(answer, search_pb2.SearchResponse):
        return "OK" if [hit.document_id for hit in answer.hits] == ["orchard"] else "OK without the hit"
    assert isinstance(answer, grpc.aio.AioRpcError)
    if answer.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return f"{answer.code().name}: {answer.details()}"
    status = rpc_status.from_call(answer)
    retry = error_details_pb2.RetryInfo()
    waits = status is not None and any(detail.Unpack(retry) for detail in status.details)
    return answer.code().name if waits and retry.retry_delay.ToMilliseconds() else f"no RetryInfo: {answer.details()}"
