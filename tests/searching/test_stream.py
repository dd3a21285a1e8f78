"""Many searches on one connection: answers as they are ready, faults one by one, and clients that stop talking."""

import asyncio

import grpc
import pytest
from google.rpc import code_pb2
from mambasearch.v1 import search_pb2

from services.search.many import STREAM_SEARCHES_MAX, StreamLimits
from tests.searching.corpora import Corpus, at
from tests.searching.service import Service, field_at_fault, serving, until


def request(request_id: str, query: str, **fields: object) -> search_pb2.SearchStreamRequest:
    return search_pb2.SearchStreamRequest(
        request_id=request_id, request=search_pb2.SearchRequest(query=query, **fields)
    )


async def test_each_search_is_answered_when_it_is_ready(corpus: Corpus, service: Service) -> None:
    await corpus.put_many(3)
    call = service.stub.SearchStream()
    await call.write(request("first", "slow pear"))
    await call.write(request("second", "pear"))
    await call.done_writing()
    answers = [answer async for answer in call]
    assert [answer.request_id for answer in answers] == ["second", "first"]
    assert all(len(answer.outcome.response.hits) == 3 for answer in answers)
    assert await call.code() is grpc.StatusCode.OK


async def test_a_search_that_fails_does_not_end_the_stream(corpus: Corpus, service: Service) -> None:
    await corpus.put_many(3)
    sent = [
        request("empty", " "),
        request("broken", "broken"),
        request("mode", "pear", mode=9),
        request("x" * 129, "pear"),
        search_pb2.SearchStreamRequest.FromString(request("unknown", "pear").SerializeToString() + b"\xfa\x07\x01x"),
        search_pb2.SearchStreamRequest(request_id="nothing"),
        request("", "pear"),
    ]
    call = service.stub.SearchStream(iter(sent))
    answers = {answer.request_id: answer.outcome async for answer in call}
    assert len(answers) == len(sent)
    for name, field in (
        ("empty", "query"),
        ("mode", "mode"),
        ("x" * 128, "request_id"),
        ("unknown", "SearchStreamRequest"),
        ("nothing", "query"),
    ):
        assert answers[name].failure.code == code_pb2.INVALID_ARGUMENT
        assert field_at_fault(answers[name].failure) == field
    assert answers["broken"].failure.code == code_pb2.INTERNAL
    assert len(answers[""].response.hits) == 3
    assert service.answered("SearchService/SearchStream") == {"OK": 1, "INVALID_ARGUMENT": 5, "INTERNAL": 1}


async def test_a_stream_has_so_many_searches_under_way(service: Service) -> None:
    sent = [request(str(number), "slow") for number in range(3 * STREAM_SEARCHES_MAX)]
    call = service.stub.SearchStream(iter(sent))
    assert len([answer async for answer in call]) == len(sent)
    assert service.encoder.most_under_way == STREAM_SEARCHES_MAX


async def test_a_full_service_refuses_one_by_one(service: Service) -> None:
    calls = [service.stub.Search(search_pb2.SearchRequest(query="never")) for _ in range(20)]
    await until(lambda: service.encoder.under_way == 20)
    stream = service.stub.SearchStream(iter([request("a", "pear")]))
    (answer,) = [answer async for answer in stream]
    assert answer.outcome.failure.code == code_pb2.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()


async def test_a_client_that_goes_ends_its_searches(service: Service) -> None:
    call = service.stub.SearchStream()
    for number in range(3):
        await call.write(request(str(number), "never"))
    await until(lambda: service.encoder.under_way == 3)
    call.cancel()
    await until(lambda: service.encoder.under_way == 0)
    assert service.servicer._places.free == 20


async def test_a_stream_without_searches_ends(corpus: Corpus) -> None:
    async with serving(corpus, StreamLimits(idle_s=0.2, send_s=30)) as service:
        call = service.stub.SearchStream()
        await call.write(request("a", "slow"))  # longer under way than a stream may be idle
        assert (await call.read()).request_id == "a"
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call.read()
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert failure.value.details() == "No request came for 0.2 s; open a new stream when one does."


async def test_a_client_that_takes_no_answers_is_left(corpus: Corpus) -> None:
    """What it is owed stays bounded meanwhile, its searches end, and it is told when it reads on."""
    await corpus.put("d", [(at(0.9 - place / 1000), "pear " * 2000) for place in range(100)])
    async with serving(corpus, StreamLimits(idle_s=30, send_s=0.5)) as service:
        sent = (request(str(number), "pear", top_k=100) for number in range(200))
        call = service.stub.SearchStream(sent)
        await until(lambda: service.encoder.asked >= STREAM_SEARCHES_MAX)
        await asyncio.sleep(1.5)
        # Beside those that are owed, a few have gone out into the connection's own window.
        assert service.encoder.asked <= STREAM_SEARCHES_MAX + 8
        assert service.encoder.under_way == 0
        assert service.servicer._places.free == 20
        assert (await service.stub.Search(search_pb2.SearchRequest(query="pear", top_k=1))).hits
        taken = []
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await _read_into(taken, call)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert failure.value.details().startswith("No answer was taken for 0.5 s; open a new stream")
        assert 0 < len(taken) < 8


async def _read_into(taken: list[search_pb2.SearchStreamResponse], call: grpc.aio.StreamStreamCall) -> None:
    async for answer in call:
        taken.append(answer)  # noqa: PERF401 - what was read before a failure counts
