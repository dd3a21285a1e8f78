"""Exit codes, and the interceptor's way with streams."""

import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, jobs_pb2

from encoder import errors
from services.status import StatusInterceptor, exit_code, unexpected


def test_every_error_has_an_exit_code_of_its_kind() -> None:
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass)} - {errors.MambaSearchError}
    arguments = {errors.Overloaded: ("Full.", 1.0), errors.InvalidInput: ("field", "Bad.")}
    for kind in kinds:
        assert exit_code(kind(*arguments.get(kind, ("Trouble.",)))) not in (0, 1), kind
    assert exit_code(errors.MambaSearchError("x")) == 1
    assert exit_code(errors.EncoderUnavailable("x")) == exit_code(errors.IndexUnavailable("x")) == 69


def test_an_incident_is_logged_with_its_causes_but_without_messages(caplog: pytest.LogCaptureFixture) -> None:
    def inner() -> None:
        raise KeyError("a user's text")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise RuntimeError("a user's text") from error

    try:
        outer()
    except RuntimeError as error:
        told = unexpected(error, "test")
    incident = str(told).partition("incident ")[2][:12]
    assert incident in caplog.text
    for words in ("RuntimeError", "caused by KeyError", "in inner", "in outer"):
        assert words in caplog.text
    assert "user" not in caplog.text.replace('raise RuntimeError("a user', "").replace('raise KeyError("a user', "")
    assert "user" not in str(told)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.NotFound("Nothing here."), grpc.StatusCode.NOT_FOUND, "Nothing here."),
        (TimeoutError(), grpc.StatusCode.DEADLINE_EXCEEDED, "No answer within the deadline"),
        (ValueError("secret"), grpc.StatusCode.INTERNAL, "incident"),
    ],
)
async def test_a_stream_ends_with_its_status_after_what_came_before(
    error: Exception, code: grpc.StatusCode, words: str
) -> None:
    class Servicer(ingest_pb2_grpc.IngestServiceServicer):
        async def IngestDocuments(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
            yield ingest_pb2.IngestDocumentsResponse(document_id="first")
            raise error

        async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
            yield jobs_pb2.Job(job_id=request.job_id)
            raise error

    server = grpc.aio.server(interceptors=[StatusInterceptor()])
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        for call in (stub.IngestDocuments(iter([])), stub.WatchJob(jobs_pb2.WatchJobRequest(job_id="first"))):
            answers = []
            with pytest.raises(grpc.aio.AioRpcError) as failure:  # noqa: PT012 - the loop is the statement
                async for answer in call:
                    answers.append(answer)  # noqa: PERF401 - those before the failure count
            assert len(answers) == 1
            assert failure.value.code() is code
            assert words in failure.value.details()
            assert "secret" not in failure.value.details()
    await server.stop(None)
