"""The one map between the project's exceptions and gRPC statuses, both ways. Knows no service.

Every status carries google.rpc details: ErrorInfo with the exception's class (so that a client gets the same class
back), BadRequest for the field at fault, RetryInfo for a full queue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from encoder import errors

DOMAIN = "mambasearch"
DETAILS_KEY = "grpc-status-details-bin"
# A server without RetryInfo (Ray Serve's proxy) says only that it is full.
RETRY_AFTER_DEFAULT_S = 0.5

_CODES: dict[type[errors.MambaSearchError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.FingerprintMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CheckpointError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InUse: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.EncoderUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.IndexUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.IndexMoved: grpc.StatusCode.UNAVAILABLE,
    errors.JournalUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.TimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StorageFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def code_of(error: errors.MambaSearchError) -> grpc.StatusCode:
    """Give the status code of an exception; one of no known class is INTERNAL."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)


def status_of(error: errors.MambaSearchError) -> status_pb2.Status:
    """Turn an exception into a ``google.rpc.Status`` with its details."""
    status = status_pb2.Status(code=code_of(error).value[0], message=str(error))
    details: list[error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo] = [
        error_details_pb2.ErrorInfo(reason=_reason(type(error)), domain=DOMAIN)
    ]
    if isinstance(error, errors.InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def error_of(
    code: grpc.StatusCode,
    message: str,
    trailing_metadata: Sequence[tuple[str, str | bytes]],
    *,
    unavailable: type[errors.Unavailable],
    service: str,
) -> errors.MambaSearchError:
    """Turn a failed call's status back into an exception.

    ``service`` names who was called, with its address ("the encoder at 127.0.0.1:9000"); ``unavailable`` is the class
    for it being out of reach, or failing inside.
    """
    kind, told, field, retry_after_s = _read_details(trailing_metadata)
    # The transport may put words of its own in the message's place, when a stream ends just as its deadline passes.
    message = told or message
    if kind is errors.InvalidInput or (kind is None and code is grpc.StatusCode.INVALID_ARGUMENT):
        return errors.InvalidInput(field, message)
    if kind is errors.Overloaded or (kind is None and code is grpc.StatusCode.RESOURCE_EXHAUSTED):
        if kind is None:
            message = f"{_capital(service)} refuses more requests ({message}); try again later."
        return errors.Overloaded(message, retry_after_s)
    if kind is not None:
        return kind(message)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return errors.Unauthenticated(message)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return errors.PermissionDenied(message)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.TimedOut(f"{_capital(service)} gave no answer in time; try again, or allow it more time.")
    if code is grpc.StatusCode.UNAVAILABLE:
        return unavailable(f"{_capital(service)} cannot be reached; start it, or correct its address.")
    return unavailable(f"{_capital(service)} failed ({code.name}: {message}); its log says why.")


def _read_details(
    trailing_metadata: Sequence[tuple[str, str | bytes]],
) -> tuple[type[errors.MambaSearchError] | None, str, str, float]:
    """Give the exception's class, its message, the field at fault and when to try again, as far as they are told."""
    kind, field, retry_after_s = None, "", RETRY_AFTER_DEFAULT_S
    data = dict(trailing_metadata).get(DETAILS_KEY)
    if not isinstance(data, bytes):
        return kind, "", field, retry_after_s
    status = status_pb2.Status.FromString(data)
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = _KINDS.get(info.reason)
        elif detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return kind, status.message, field, retry_after_s


def _reason(kind: type[errors.MambaSearchError]) -> str:
    """``FingerprintMismatch`` is FINGERPRINT_MISMATCH: ErrorInfo asks for this spelling."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_KINDS = {_reason(kind): kind for kind in _CODES}
