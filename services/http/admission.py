"""The door for HTTP: requests are known, allowed, counted, timed and noted, as calls of gRPC are. Knows no routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.types import Scope

from encoder.errors import Unauthenticated
from services.door.audit import AuditEntry
from services.door.authenticating import PeerCertificate
from services.door.authorizing import check_role
from services.door.door import Door
from services.door.principal import Principal, set_caller
from services.door.requests import named_thing, naming_tenants
from services.door.rules import TenantIn, rule_of
from services.http.connections import PEER_CERTIFICATE
from services.http.problems import REFUSED_WITH, problem_of
from services.observing.calls import CallObserver

REQUEST_ID = "x-request-id"
# Stands for the method in the metric of calls: paths are whatever somebody asks for.
REFUSED_METHOD = "http/refused"
_PATH_CHARS_MAX = 200


@dataclass(slots=True)
class Admitted:
    """A request that may be answered. ``tokens`` is what it has cost, which its handler says."""

    principal: Principal
    tenant: str
    thing: str
    tokens: int = 0


class Admission:
    """Lets requests through a :class:`Door`. ``open_paths`` are for everybody; ``observer`` observes the others."""

    def __init__(self, door: Door, open_paths: frozenset[str], observer: CallObserver | None = None) -> None:
        self.door = door
        self._observer = observer
        self._open_paths = open_paths

    async def admit(self, scope: Scope) -> None:
        """Say who sends a request, before its body is read; :class:`Unauthenticated` where nobody is known."""
        if scope["path"] in self._open_paths:
            return
        started = time.monotonic()
        try:
            shown = _authorization(scope)
            scope["state"]["principal"] = await self.door.authenticate(shown, _certificate(scope["state"]))
        except Exception as error:
            path = f"http/{scope['method']} {scope['path'][:_PATH_CHARS_MAX]}"
            self._note(scope["state"]["request_id"], path, None, _code(error), started)
            raise

    def count_refusal(self, scope: Scope) -> None:
        """Count a request that was refused and is no call of any method: it came to no route, or not beyond it."""
        state = scope["state"]
        if self._observer and REFUSED_WITH in state and "observed" not in state:
            self._observer.metrics.requests.labels(REFUSED_METHOD, state[REFUSED_WITH]).inc()

    @asynccontextmanager
    async def admitted(
        self, request: Request, method: str, message: Message | None, timeout_s: float | None
    ) -> AsyncIterator[Admitted]:
        """Let a request have its answer inside the block, as a call of ``method`` (a full name of gRPC).

        ``message`` comes to name the tenant that it is for. Raises what :class:`Door` and
        :func:`services.door.authorizing.authorize` do, and TimeoutError after ``timeout_s``.
        """
        started = time.monotonic()
        principal: Principal = request.state.principal
        call = Admitted(principal, _only_tenant(principal), named_thing(message) if message else "")
        told = [(REQUEST_ID, request.state.request_id), ("traceparent", request.headers.get("traceparent", ""))]
        with ExitStack() as observed:
            answering = None
            if self._observer:
                request.state.observed = True
                name = method.rpartition(".")[2].lstrip("/")  # as the interceptor of gRPC names it
                observing = self._observer.answering(name, told, stream=timeout_s is None)
                answering = observed.enter_context(observing)
            try:
                async with self._inside(call, method, message, timeout_s):
                    yield call
            except BaseException as error:
                code = _code(error)
                if answering:
                    answering.code = code
                self._note(request.state.request_id, method, call, code, started)
                raise
        self._note(request.state.request_id, method, call, "OK", started)

    @asynccontextmanager
    async def _inside(
        self, call: Admitted, method: str, message: Message | None, timeout_s: float | None
    ) -> AsyncIterator[None]:
        principal = call.principal
        set_caller(principal)
        check_role(principal, method)
        rule = rule_of(method)
        if message is not None and rule is not None and rule.tenant is TenantIn.FIELD:
            for naming in naming_tenants(message):
                naming.tenant = call.tenant = principal.tenant_for(naming.tenant)
        async with asyncio.timeout(timeout_s):
            with self.door.admitted(principal, method, call.tenant):
                yield
        self.door.charge(principal, call.tenant, call.tokens)

    def _note(self, request_id: str, method: str, call: Admitted | None, code: str, started: float) -> None:
        if not self.door.audit.is_kept:
            return
        refused = code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}
        self.door.audit.note(
            AuditEntry(
                who=call.principal.name if call else "",
                method=method.lstrip("/"),
                tenant=call.tenant if call else "",
                thing=call.thing if call else "",
                outcome="ok" if code == "OK" else "refused" if refused else "failed",
                code=code,
                duration_ms=round((time.monotonic() - started) * 1000, 3),
                request_id=request_id,
            )
        )


def _authorization(scope: Scope) -> str | None:
    shown = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
    if len(shown) > 1:
        raise Unauthenticated("authorization is given more than once; send one.")
    return shown[0] if shown else None


def _only_tenant(principal: Principal) -> str:
    """Give the tenant that a caller's requests count for where they name none."""
    return next(iter(principal.tenants)) if principal.tenants is not None and len(principal.tenants) == 1 else ""


def _certificate(state: Mapping[str, Any]) -> PeerCertificate | None:
    shown = state.get(PEER_CERTIFICATE)
    if not shown:
        return None
    common = [value for part in shown.get("subject", ()) for name, value in part if name == "commonName"]
    return PeerCertificate(frozenset([*common, *(value for _, value in shown.get("subjectAltName", ()))]))


def _code(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    try:
        return problem_of(error).code if isinstance(error, Exception) else "INTERNAL"
    except AssertionError:
        return "INTERNAL"
