"""The methods of the search service over gRPC: whole answers, masks, pages, batches, and statuses."""

import asyncio
import time

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import code_pb2
from mambasearch.v1 import filter_pb2, metadata_pb2, search_pb2

from tests.searching.corpora import QUERY, Corpus, at
from tests.searching.service import CONCURRENCY_MAX, Service, field_at_fault, until

VECTOR = QUERY.tolist()


async def failure_of(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value


async def test_an_answer_has_all_that_is_known(corpus: Corpus, service: Service) -> None:
    await corpus.put("d", [(at(0.9), "apple")], metadata={"year": 2020, "tags": ("a", "b")})
    request = search_pb2.SearchRequest(embedding=VECTOR, explain=True)
    answer = await service.stub.Search(request)
    (hit,) = answer.hits
    assert (hit.document_id, hit.title, hit.source, hit.text) == ("d", "Title of d", "a/b.txt", "apple")
    assert (hit.metadata["year"].integer, list(hit.metadata["tags"].texts.texts)) == (2020, ["a", "b"])
    assert hit.explanation.summary == "0.9000 is the cosine"
    assert hit.explanation.dense_rank == 1
    assert not hit.explanation.HasField("sparse_rank")
    assert (answer.next_page_token, answer.depth_reached) == ("", False)
    assert answer.timings.dense_time_ms > 0


async def test_a_mask_leaves_out_the_rest(corpus: Corpus, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await corpus.put_many(20)
    mask = FieldMask(paths=["hits.document_id", "hits.score", "next_page_token"])
    request = search_pb2.SearchRequest(embedding=VECTOR, top_k=2, read_mask=mask, explain=True)

    async def refuse(*arguments: object, **options: object) -> dict:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(corpus.index, "read_chunks", refuse)  # no text is asked for
        answer = await service.stub.Search(request)
    wanted = [search_pb2.Hit(document_id=f"d00{place}", score=hit.score) for place, hit in enumerate(answer.hits)]
    token = answer.next_page_token
    assert answer == search_pb2.SearchResponse(hits=wanted, next_page_token=token)
    request.page_token = token
    request.ClearField("read_mask")
    assert [hit.rank for hit in (await service.stub.Search(request)).hits] == [3, 4]


async def test_groups_and_filters(corpus: Corpus, service: Service) -> None:
    await corpus.put("old", [(at(0.9), "apple"), (at(0.8), "apple")], metadata={"year": 1990})
    await corpus.put("new", [(at(0.7), "apple")], metadata={"year": 2020})
    late = filter_pb2.FieldRange(field="metadata.year", at_least=metadata_pb2.MetadataValue(integer=2000))
    request = search_pb2.SearchRequest(embedding=VECTOR, group_by_document=search_pb2.Grouping(chunks_max=1))
    groups = (await service.stub.Search(request)).groups
    assert [(group.document_id, group.chunk_count, len(group.hits)) for group in groups] == [
        ("old", 2, 1),
        ("new", 1, 1),
    ]
    request.filter.range.CopyFrom(late)
    assert [group.document_id for group in (await service.stub.Search(request)).groups] == ["new"]


async def test_retrieval_has_a_text_block_with_citations(corpus: Corpus, service: Service) -> None:
    await corpus.put("d", [(at(0.1), "before"), (at(0.9), "found"), (at(0.2), "after")])
    request = search_pb2.RetrieveRequest(embedding=VECTOR, min_score=0.5, neighbours=1)
    answer = await service.stub.Retrieve(request)
    (passage,) = answer.passages
    assert (passage.number, passage.chunk_index_first, passage.chunk_index_last) == (1, 0, 2)
    assert (passage.line_start, passage.line_end, list(passage.headings)) == (1, 4, ["One"])
    assert answer.context == "[1] Title of d › One (d, lines 1-4)\nbefore\nfound\nafter"
    assert passage.token_count == answer.token_count == 3
    assert answer.token_count < answer.context_tokens <= 2048
    request.read_mask.paths.append("context")
    assert await service.stub.Retrieve(request) == search_pb2.RetrieveResponse(context=answer.context)


async def test_similar_documents_and_chunks(corpus: Corpus, service: Service) -> None:
    await corpus.put("d", [(at(0.9), "apple"), (at(0.8), "pear")])
    await corpus.put("e", [(at(0.9), "apple")])
    similar = await service.stub.SimilarDocuments(search_pb2.SimilarDocumentsRequest(document_id="d"))
    assert [document.document_id for document in similar.documents] == ["e"]
    page = await service.stub.ListChunks(search_pb2.ListChunksRequest(document_id="d", page_size=1))
    assert ([chunk.text for chunk in page.chunks], page.title, page.chunk_count) == (["apple"], "Title of d", 2)
    assert page.next_page_token
    for method, request in (
        ("SimilarDocuments", search_pb2.SimilarDocumentsRequest(document_id="none")),
        ("ListChunks", search_pb2.ListChunksRequest(document_id="none")),
    ):
        failure = await failure_of(getattr(service.stub, method)(request))
        assert failure.code() is grpc.StatusCode.NOT_FOUND
        assert "no document 'none'" in failure.details()


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Search", search_pb2.SearchRequest(embedding=[1.0]), "embedding"),
        ("Search", search_pb2.SearchRequest(embedding=[float("nan")] * 8), "embedding[0]"),
        ("Search", search_pb2.SearchRequest(query="a", mode=7), "mode"),
        ("Search", search_pb2.SearchRequest(query="a", page_token="x"), "page_token"),
        ("Search", search_pb2.SearchRequest(query="a", read_mask=FieldMask(paths=["nothing"])), "read_mask"),
        ("Search", search_pb2.SearchRequest(query="a", min_score=0.5, mode=2), "min_score"),
        ("Retrieve", search_pb2.RetrieveRequest(query="a", neighbours=9), "neighbours"),
        ("Retrieve", search_pb2.RetrieveRequest(query="a", read_mask=FieldMask(paths=["hits"])), "read_mask"),
        ("SimilarDocuments", search_pb2.SimilarDocumentsRequest(document_id="d", top_k=101), "top_k"),
        ("ListChunks", search_pb2.ListChunksRequest(document_id=""), "document_id"),
        ("BatchSearch", search_pb2.BatchSearchRequest(), "requests"),
        ("BatchSearch", search_pb2.BatchSearchRequest(requests=[search_pb2.SearchRequest()] * 101), "requests"),
    ],
)
async def test_what_is_refused_is_named(service: Service, method: str, request_: object, field: str) -> None:
    failure = await failure_of(getattr(service.stub, method)(request_))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field_at_fault(failure) == field


async def test_unknown_fields_are_refused(service: Service) -> None:
    for method, message in (
        ("Search", search_pb2.SearchRequest),
        ("Retrieve", search_pb2.RetrieveRequest),
        ("SimilarDocuments", search_pb2.SimilarDocumentsRequest),
        ("ListChunks", search_pb2.ListChunksRequest),
        ("BatchSearch", search_pb2.BatchSearchRequest),
    ):
        request = message.FromString(b"\xfa\x07\x01x")
        failure = await failure_of(getattr(service.stub, method)(request))
        assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT, method
        assert "unknown field of number 127" in failure.details()


async def test_a_batch_answers_and_fails_one_by_one(corpus: Corpus, service: Service) -> None:
    await corpus.put_many(5)
    requests = [
        search_pb2.SearchRequest(query="pear"),
        search_pb2.SearchRequest(query=" "),
        search_pb2.SearchRequest(query="broken"),
        search_pb2.SearchRequest(embedding=VECTOR, top_k=2),
    ]
    outcomes = (await service.stub.BatchSearch(search_pb2.BatchSearchRequest(requests=requests))).outcomes
    kinds = [outcome.WhichOneof("outcome") for outcome in outcomes]
    assert kinds == ["response", "failure", "failure", "response"]
    assert len(outcomes[3].response.hits) == 2
    assert outcomes[1].failure.code == code_pb2.INVALID_ARGUMENT
    assert field_at_fault(outcomes[1].failure) == "query"
    assert outcomes[2].failure.code == code_pb2.INTERNAL
    assert "incident" in outcomes[2].failure.message
    assert service.answered("SearchService/BatchSearch") == {"OK": 2, "INVALID_ARGUMENT": 1, "INTERNAL": 1}


async def test_a_batch_is_one_of_the_searches_under_way(service: Service) -> None:
    requests = [search_pb2.SearchRequest(query=f"slow {place}") for place in range(24)]
    await service.stub.BatchSearch(search_pb2.BatchSearchRequest(requests=requests))
    assert service.encoder.most_under_way == 8
    batch = search_pb2.BatchSearchRequest(requests=[search_pb2.SearchRequest(query="slow")] * 16)
    one = search_pb2.SearchRequest(query="never")
    calls = [service.stub.Search(one) for _ in range(CONCURRENCY_MAX - 2)]
    await until(lambda: service.encoder.under_way >= CONCURRENCY_MAX - 2)
    asked = service.encoder.asked
    running = asyncio.ensure_future(_done(service.stub.BatchSearch(batch)))
    await until(lambda: service.encoder.asked >= asked + 2)
    refused = await failure_of(service.stub.BatchSearch(batch))
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    running.cancel()
    for call in calls:
        call.cancel()


async def _done(call: grpc.aio.UnaryUnaryCall) -> object:
    return await call


async def test_a_batch_ends_with_its_deadline(service: Service) -> None:
    requests = [search_pb2.SearchRequest(query="never"), search_pb2.SearchRequest(query="pear")]
    begun = time.monotonic()
    call = service.stub.BatchSearch(search_pb2.BatchSearchRequest(requests=requests), timeout=0.5)
    try:
        never, pear = (await call).outcomes
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017 - the client's own clock may be the faster one
    else:
        assert never.failure.code == code_pb2.DEADLINE_EXCEEDED
        assert pear.WhichOneof("outcome") == "response"
    assert time.monotonic() - begun < 5
