"""What is open to all or to those who run the service: health, metrics, the pages and their files."""

from __future__ import annotations

import hashlib
import importlib.resources

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import exposition

from services.http.calling import Parts

PAGE_FOLDER = importlib.resources.files("services.http") / "page"
# Addresses, the files that are shown there, and of what type they are.
PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/api.js": ("api.js", "text/javascript; charset=utf-8"),
    "/elements.js": ("elements.js", "text/javascript; charset=utf-8"),
    "/filters.js": ("filters.js", "text/javascript; charset=utf-8"),
    "/results.js": ("results.js", "text/javascript; charset=utf-8"),
    "/reader.js": ("reader.js", "text/javascript; charset=utf-8"),
    "/jobs.js": ("jobs.js", "text/javascript; charset=utf-8"),
    "/marking.js": ("marking.js", "text/javascript; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
# What needs no key: nothing of it says anything of documents.
OPEN_PATHS = frozenset({*PAGE_FILES, "/healthz", "/readyz", "/openapi.json"})


def service_routes(parts: Parts) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["service"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "SERVING"}

    @router.get("/readyz", responses={503: {"description": "Not now: encoder or index are away, or it is stopping."}})
    async def readyz() -> JSONResponse:
        """Say whether searches can be answered: what grpc.health.v1 says."""
        serving = parts.is_serving() and not parts.stopping.is_set()
        status = {"status": "SERVING" if serving else "NOT_SERVING"}
        return JSONResponse(status, 200 if serving else 503, {"cache-control": "no-store"})

    @router.get("/metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        """Give the process's metrics, as Prometheus reads them."""
        parts.check_may_see_metrics(request)
        encoder, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(parts.registry), media_type=content_type)

    for path, (name, media_type) in PAGE_FILES.items():
        _add_file(router, path, (PAGE_FOLDER / name).read_bytes(), media_type)
    return router


def _add_file(router: APIRouter, path: str, content: bytes, media_type: str) -> None:
    headers = {"etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"', "cache-control": "no-cache"}

    @router.get(path, include_in_schema=False)
    async def page_file(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)
