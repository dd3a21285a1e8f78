"""What went wrong, as HTTP says it: a status, and a JSON body with the code that gRPC would have answered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from starlette.responses import JSONResponse
from starlette.types import Scope

from encoder import errors
from encoder.grpc_errors import code_of

EMBEDDINGS_PATH = "/v1/embeddings"
FIELD_CHARS_MAX = 200
# Where a request's state has the code of the problem that it was answered with.
REFUSED_WITH = "refused_with"

# As google.rpc.Code has them beside each code.
_STATUSES = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
# The names that OpenAI's clients know.
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


@dataclass(eq=False)
class Problem(Exception):
    """A request that is not answered. ``code`` is a name of google.rpc.Code, and ``status`` HTTP's."""

    status: int
    code: str
    message: str
    field: str = ""
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return self.message


def problem_of(error: Exception) -> Problem:
    """Say how HTTP answers an exception of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TimeoutError):
        error = errors.TimedOut("No answer within the time limit; try again, or ask for less.")
    assert isinstance(error, errors.MambaSearchError)
    code = code_of(error)
    return Problem(
        _STATUSES.get(code, 500),
        code.name,
        str(error),
        error.field if isinstance(error, errors.InvalidInput) else "",
        error.retry_after_s if isinstance(error, errors.Overloaded) else None,
    )


def answer_of(problem: Problem, scope: Scope, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Write the answer to a request, which notes the code: in OpenAI's words where that is whom we stand for."""
    scope["state"][REFUSED_WITH] = problem.code
    told = dict(headers or {})
    if problem.retry_after_s is not None:
        told["retry-after"] = str(max(1, math.ceil(problem.retry_after_s)))
    if problem.status == 401:
        told["www-authenticate"] = "Bearer"
    body = _openai_body(problem) if scope["path"] == EMBEDDINGS_PATH else _body(problem)
    return JSONResponse({"error": body}, problem.status, told)


def _body(problem: Problem) -> dict[str, Any]:
    body: dict[str, Any] = {"code": problem.code, "message": problem.message}
    if problem.field:
        body["field"] = problem.field[:FIELD_CHARS_MAX]
    if problem.retry_after_s is not None:
        body["retry_after_s"] = problem.retry_after_s
    return body


def _openai_body(problem: Problem) -> dict[str, Any]:
    kind = _OPENAI_TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    code = "model_not_found" if (problem.status, problem.field) == (404, "model") else problem.code.lower()
    return {"message": problem.message, "type": kind, "param": problem.field or None, "code": code}
