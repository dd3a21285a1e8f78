"""The HTTP application: routes, errors, and the guard around them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from encoder.errors import MambaSearchError
from services.http.admission import Admission
from services.http.calling import Parts
from services.http.guard import REQUEST_ID, Guard, Limits
from services.http.job_routes import job_routes
from services.http.origins import Origins
from services.http.problems import Problem, answer_of, problem_of
from services.http.search_routes import search_routes
from services.http.service_routes import service_routes
from services.status import unexpected

_VALUE_CHARS_MAX = 80
_DESCRIPTION = """Search in long documents. Everything here is what the service says over gRPC, under the same names,
with the same limits; proto/mambasearch/v1 has all of it.

Where keys are asked for, send "authorization: Bearer KEY". The header x-request-id names a request; the answer has it.
"""
# The body of all errors but those of /v1/embeddings, whose errors are OpenAI's.
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "A name of google.rpc.Code, such as INVALID_ARGUMENT."},
                "message": {"type": "string", "description": "What is wrong and what to do, in one sentence."},
                "field": {"type": "string", "description": "The field at fault."},
                "retry_after_s": {"type": "number", "description": "Try again after so many seconds."},
            },
        }
    },
}


def make_app(parts: Parts, admission: Admission, limits: Limits, origins: Origins) -> ASGIApp:
    """Make the application, with what guards it."""
    app = FastAPI(
        title="mamba-search",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_exception_handler(MambaSearchError, _answer_ours)
    app.add_exception_handler(TimeoutError, _answer_ours)
    app.add_exception_handler(Problem, _answer_ours)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_unforeseen)
    error = {"content": {"application/json": {"schema": _ERROR_SCHEMA}}}
    descriptions = {
        400: "A field is not acceptable, or the index was made by another model.",
        401: "No key, or one that is not good.",
        403: "Not with this key.",
        404: "There is no such thing.",
        413: "The body is too long.",
        429: "Too much at once; try again after retry_after_s.",
        503: "Encoder, index or worker is away.",
        504: "No answer in time.",
    }
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": description, **error} for status, description in descriptions.items()
    }
    app.include_router(search_routes(parts, responses))
    app.include_router(job_routes(parts, responses))
    app.include_router(service_routes(parts))
    guarded: ASGIApp = Guard(app, limits, origins, admission.admit, admission.count_refusal)
    if not origins.allowed:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=sorted(origins.allowed),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", REQUEST_ID, "traceparent"],
        expose_headers=[REQUEST_ID, "retry-after"],
    )


async def _answer_ours(request: Request, error: Exception) -> JSONResponse:
    return answer_of(problem_of(error), request.scope)


async def _answer_unforeseen(request: Request, error: Exception) -> JSONResponse:
    return answer_of(problem_of(unexpected(error, request.url.path)), request.scope)


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    """Say in our words what the framework refuses: unknown paths, methods, bodies."""
    assert isinstance(error, HTTPException)
    codes = {404: "NOT_FOUND", 405: "UNIMPLEMENTED"}
    messages = {
        400: "The body is not JSON in UTF-8, or is nested too deeply; send an object as /docs describes it.",
        404: "There is nothing at this path; /docs lists what there is.",
        405: "This path has other methods; /docs lists them.",
    }
    status = error.status_code
    problem = Problem(
        status,
        codes.get(status, "INVALID_ARGUMENT"),
        messages.get(status, str(error.detail)),
        "body" if status == 400 else "",
    )
    return answer_of(problem, request.scope, error.headers)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """Name the first field that does not fit, with its value and what fits."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where, *path = first["loc"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return answer_of(_refusal(first, str(where), field), request.scope)


def _refusal(first: dict[str, Any], where: str, field: str) -> Problem:
    if first["type"] == "json_invalid":
        said = first.get("ctx", {}).get("error", "it cannot be read")
        return Problem(400, "INVALID_ARGUMENT", f"The body is not JSON: {said}.", "body")
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    name = field or where
    if first["type"] == "missing":
        hint = "" if field else "; send JSON, with content-type: application/json"
        return Problem(400, "INVALID_ARGUMENT", f"{name} is missing{hint}.", name)
    if first["type"] == "extra_forbidden":
        return Problem(400, "INVALID_ARGUMENT", f"{name} is not known; correct its name or leave it out.", name)
    if not field and first["type"] == "model_attributes_type":
        message = "The body is not a JSON object; send one, with content-type: application/json."
        return Problem(400, "INVALID_ARGUMENT", message, "body")
    value = _shown(first.get("input"))
    return Problem(400, "INVALID_ARGUMENT", f"{name} is {value}: {reason}.", name)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_CHARS_MAX else text[: _VALUE_CHARS_MAX - 1] + "…"
