"""Exceptions to gRPC statuses and back."""

import inspect

import grpc
import pytest
from google.rpc import error_details_pb2

from encoder import errors
from encoder.grpc_errors import DETAILS_KEY, code_of, error_of, status_of

CASES = [
    (errors.InvalidInput("top_k", "top_k is 300; 1 to 200 are allowed."), grpc.StatusCode.INVALID_ARGUMENT),
    (errors.Unauthenticated("Nobody."), grpc.StatusCode.UNAUTHENTICATED),
    (errors.PermissionDenied("Not you."), grpc.StatusCode.PERMISSION_DENIED),
    (errors.NotFound("No such document."), grpc.StatusCode.NOT_FOUND),
    (errors.FingerprintMismatch("Another model."), grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CheckpointError("No config.json."), grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Unavailable("Away."), grpc.StatusCode.UNAVAILABLE),
    (errors.EncoderUnavailable("Away."), grpc.StatusCode.UNAVAILABLE),
    (errors.IndexUnavailable("Away."), grpc.StatusCode.UNAVAILABLE),
    (errors.IndexMoved("Elsewhere."), grpc.StatusCode.UNAVAILABLE),
    (errors.JournalUnavailable("Away."), grpc.StatusCode.UNAVAILABLE),
    (errors.TimedOut("Too slow."), grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.Overloaded("Full.", 1.25), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.StorageFull("Disk full."), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.InUse("Held by pid 7."), grpc.StatusCode.FAILED_PRECONDITION),
]


def test_the_cases_are_all_classes() -> None:
    tree = {kind for _, kind in inspect.getmembers(errors, inspect.isclass)} - {errors.MambaSearchError}
    assert {type(error) for error, _ in CASES} == tree


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda value: type(value).__name__)
def test_there_and_back(error: errors.MambaSearchError, code: grpc.StatusCode) -> None:
    status = status_of(error)
    assert code_of(error) is code
    assert (status.code, status.message) == (code.value[0], str(error))
    back = error_of(
        code,
        status.message,
        [(DETAILS_KEY, status.SerializeToString())],
        unavailable=errors.IndexUnavailable,
        service="the index owner at h:1",
    )
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_the_details_hold_the_message_whatever_the_transport_says() -> None:
    told = errors.TimedOut("The request's time was over.")
    back = error_of(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "Stream removed (Deadline Exceeded)",
        [(DETAILS_KEY, status_of(told).SerializeToString())],
        unavailable=errors.EncoderUnavailable,
        service="the encoder service at h:1",
    )
    assert type(back) is errors.TimedOut
    assert str(back) == str(told)


def test_details_say_what_a_client_can_act_on() -> None:
    bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(bad_request) for detail in status_of(CASES[0][0]).details)
    assert bad_request.field_violations[0].field == "top_k"
    assert any(detail.Unpack(retry) for detail in status_of(errors.Overloaded("Full.", 1.25)).details)
    assert retry.retry_delay.ToMilliseconds() == 1250


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.EncoderUnavailable, "The encoder at h:1 cannot be reached"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.TimedOut, "The encoder at h:1 gave no answer in time"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Overloaded, "refuses more requests"),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidInput, "told"),
        (grpc.StatusCode.INTERNAL, errors.EncoderUnavailable, "failed \\(INTERNAL: told\\)"),
        (grpc.StatusCode.NOT_FOUND, errors.EncoderUnavailable, "failed \\(NOT_FOUND: told\\)"),
    ],
)
def test_a_status_without_our_details(code: grpc.StatusCode, kind: type[errors.MambaSearchError], words: str) -> None:
    error = error_of(code, "told", [], unavailable=errors.EncoderUnavailable, service="the encoder at h:1")
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error
