"""The door for gRPC: each call is known, allowed, counted, timed and noted before its handler sees it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from mambasearch.v1 import ingest_pb2

from encoder.call_context import accept, current_call
from encoder.errors import MambaSearchError, Unauthenticated
from encoder.grpc_errors import code_of
from services.door.audit import AuditEntry
from services.door.authenticating import PeerCertificate
from services.door.authorizing import check_role
from services.door.door import Door
from services.door.principal import Principal, set_caller
from services.door.requests import named_thing, naming_tenants, tokens_of
from services.door.rules import TenantIn, rule_of
from services.handlers import wrapped
from services.status import aborting

HEALTH_SERVICE = "/grpc.health."
_GRPC_SERVICES = "/grpc."

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True)
class _Call:
    """What is known of a call by and by."""

    method: str
    request_id: str
    principal: Principal | None = None
    tenant: str = ""
    thing: str = ""
    tenants_of_messages: deque[str] = field(default_factory=deque)  # of a stream, those not yet answered
    started: float = field(default_factory=time.monotonic)


class DoorInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls through a :class:`Door`. Health is open; reflection is for every caller that is known."""

    def __init__(self, door: Door, *, certificates: bool) -> None:
        """Make it; ``certificates`` says whether clients show certificates."""
        self._door, self._certificates = door, certificates

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(HEALTH_SERVICE):
            return handler
        if method.startswith(_GRPC_SERVICES):
            return wrapped(handler, method, stream=self._known_only)
        return wrapped(handler, method, unary=self._unary, answers=self._answers, stream=self._stream)

    def _unary(self, handler: Callable[..., Any], method: str) -> Callable[..., Any]:
        async def answer(request: Message, context: _Context) -> object:
            with self._noted(method, context) as call:
                principal = await self._enter(call, context)
                count = self._read_request(call, principal, request)
                async with asyncio.timeout(self._door.call_timeout_s):
                    with self._door.admitted(principal, method, call.tenant, count):
                        response = await handler(request, context)
                self._door.charge(principal, call.tenant, tokens_of(response))
                call.thing = call.thing or named_thing(response)
                return response

        return answer

    def _answers(self, handler: Callable[..., Any], method: str) -> Callable[..., Any]:
        """Guard a handler of one request and a stream of answers."""

        async def answer(request: Message, context: _Context) -> AsyncIterator[object]:
            with self._noted(method, context) as call:
                principal = await self._enter(call, context)
                count = self._read_request(call, principal, request)
                with self._door.admitted(principal, method, call.tenant, count):
                    async with aclosing(handler(request, context)) as responses:
                        async for response in responses:
                            self._door.authenticator.check_still_good(principal)
                            yield response

        return answer

    def _stream(self, handler: Callable[..., Any], method: str) -> Callable[..., Any]:
        """Guard a handler of a stream of requests and a stream of answers."""

        async def answer(requests: AsyncIterator[Message], context: _Context) -> AsyncIterator[object]:
            with self._noted(method, context) as call:
                principal = await self._enter(call, context)
                if principal.tenants is not None and len(principal.tenants) == 1:
                    call.tenant = next(iter(principal.tenants))
                with self._door.admitted(principal, method, call.tenant):
                    messages = self._messages(call, principal, requests)
                    async with aclosing(handler(messages, context)) as responses:
                        async for response in responses:
                            self._settle(call, principal, response)
                            yield response

        return answer

    async def _messages(
        self, call: _Call, principal: Principal, requests: AsyncIterator[Message]
    ) -> AsyncIterator[Message]:
        """Pass a stream's requests on, each checked, and in its turn."""
        async for request in requests:
            self._door.authenticator.check_still_good(principal)
            tenant = self._tenant_of_message(call, principal, request)
            call.tenants_of_messages.append(tenant)
            await self._door.turn(principal, tenant)
            yield request

    def _tenant_of_message(self, call: _Call, principal: Principal, request: Message) -> str:
        rule = rule_of(call.method)
        if rule is not None and rule.tenant is TenantIn.MESSAGES:
            # The handler refuses one document of another tenant, and goes on with the next.
            named = str(getattr(request, "tenant", ""))
            return named if principal.sees(named) else call.tenant
        self._read_request(call, principal, request)
        return call.tenant

    def _settle(self, call: _Call, principal: Principal, response: object) -> None:
        """Take what an answer of a stream has cost, and note the document that it is about."""
        assert isinstance(response, Message)
        if isinstance(response, ingest_pb2.IngestDocumentsResponse):
            if response.HasField("slow_down"):
                return
            tenant = call.tenants_of_messages.popleft() if call.tenants_of_messages else call.tenant
            self._door.charge(principal, tenant, tokens_of(response))
            if self._door.audit.is_kept:
                outcome = ingest_pb2.IngestOutcome.Name(response.outcome).removeprefix("INGEST_OUTCOME_").lower()
                code = _name_of(response.error.code)
                self._note_entry(call, tenant, response.document_id, outcome, code)
            return
        self._door.charge(principal, call.tenant, tokens_of(response))

    async def _enter(self, call: _Call, context: _Context) -> Principal:
        """Say who calls, and see to it that the caller may."""
        principal = await self._door.authenticate(_authorization(context), self._certificate(context))
        call.principal = principal
        set_caller(principal)
        check_role(principal, call.method)
        return principal

    def _certificate(self, context: _Context) -> PeerCertificate | None:
        if not self._certificates:
            return None
        shown = context.auth_context()
        names = [*shown.get("x509_common_name", ()), *shown.get("x509_subject_alternative_name", ())]
        return PeerCertificate(frozenset(name.decode(errors="replace") for name in names))

    @staticmethod
    def _read_request(call: _Call, principal: Principal, request: Message) -> int:
        """Have a request name the tenant that it means; give how many requests it holds."""
        call.thing = named_thing(request)
        rule = rule_of(call.method)
        if rule is None or rule.tenant is not TenantIn.FIELD:
            return 1
        naming = naming_tenants(request)
        for one in naming:
            one.tenant = call.tenant = principal.tenant_for(one.tenant)
        return max(len(naming), 1)

    def _known_only(self, handler: Callable[..., Any], method: str) -> Callable[..., Any]:
        """Guard a service of gRPC's own, whose statuses no other interceptor makes."""

        async def answer(requests: object, context: _Context) -> AsyncIterator[object]:
            async with aborting(context, method):
                await self._door.authenticate(_authorization(context), self._certificate(context))
                async for response in handler(requests, context):
                    yield response

        return answer

    @contextmanager
    def _noted(self, method: str, context: _Context) -> Iterator[_Call]:
        """Begin to know of a call, and note how it ends."""
        call = _Call(method, _request_id(context))
        try:
            yield call
        except BaseException as error:
            self._note(call, _code(error, context))
            raise
        self._note(call, grpc.StatusCode.OK)

    def _note(self, call: _Call, code: grpc.StatusCode) -> None:
        if self._door.audit.is_kept:
            outcome = "ok" if code is grpc.StatusCode.OK else "failed"
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                outcome = "refused"
            self._note_entry(call, call.tenant, call.thing, outcome, code.name)

    def _note_entry(self, call: _Call, tenant: str, thing: str, outcome: str, code: str) -> None:
        self._door.audit.note(
            AuditEntry(
                who=call.principal.name if call.principal else "",
                method=call.method.lstrip("/"),
                tenant=tenant,
                thing=thing,
                outcome=outcome,
                code=code,
                duration_ms=round((time.monotonic() - call.started) * 1000, 3),
                request_id=call.request_id,
            )
        )


def _authorization(context: _Context) -> str | None:
    shown = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if len(shown) > 1:
        raise Unauthenticated("authorization is given more than once; send one.")
    return str(shown[0]) if shown else None


def _request_id(context: _Context) -> str:
    """Give the id that the log and the traces have; where nobody observes calls, by the same rule."""
    return (current_call() or accept(context.invocation_metadata() or ())).request_id


def _code(error: BaseException, context: _Context) -> grpc.StatusCode:
    match error:
        case MambaSearchError():
            return code_of(error)
        case TimeoutError():
            return grpc.StatusCode.DEADLINE_EXCEEDED
        case asyncio.CancelledError() | GeneratorExit():
            return grpc.StatusCode.CANCELLED
        case grpc.aio.AbortError():
            code = context.code()
            return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN
        case _:
            return grpc.StatusCode.INTERNAL


def _name_of(number: int) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)
