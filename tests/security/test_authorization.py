"""Which role may call what: every method of every protocol has a rule, and each rule holds."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from mambasearch.v1 import index_pb2

from encoder.errors import PermissionDenied
from services.door.authorizing import authorize
from services.door.principal import Principal, Role
from services.door.requests import NESTED
from services.door.rules import RULES, TenantIn, rule_of
from services.grpc_server import GrpcServer
from tests.security.secured import INGEST_SERVICE, SEARCH_SERVICE, Secured, secured

SERVICES = (SEARCH_SERVICE, INGEST_SERVICE)
METHODS = [(service.full_name, method.name) for service in SERVICES for method in service.methods]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("authz")) as found:
        yield found


def request_of(service: str, method: str) -> object:
    found: ServiceDescriptor = next(one for one in SERVICES if one.full_name == service)
    return GetMessageClass(found.methods_by_name[method].input_type)()


@pytest.mark.parametrize(("service", "method"), METHODS)
@pytest.mark.parametrize("role", list(Role))
def test_a_method_answers_those_who_may_call_it_and_no_others(
    services: Secured, service: str, method: str, role: Role
) -> None:
    rule = RULES[f"/{service}/{method}"]
    code, words = services.caller(role).refusal(method, request_of(service, method))
    if role is Role.ADMIN or role in rule.roles:
        # An empty request is refused for what it lacks, or answered; never for who asks.
        assert code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND"), words
    else:
        assert code == "PERMISSION_DENIED"
        assert f"{method} needs the role" in words


def test_every_method_has_a_rule() -> None:
    # The encoder's methods are behind Ray Serve's proxy: its replicas ask for a token of our own parts.
    names = {f"/{service}/{method}" for service, method in METHODS}
    assert names <= set(RULES)
    for method in index_pb2.DESCRIPTOR.services_by_name["IndexService"].methods:
        assert rule_of(f"/{method.containing_service.full_name}/{method.name}") is not None
    assert rule_of("/mambasearch.v1.SearchService/New") is None


def tenants_in(message: Descriptor, depth: int = 0) -> int:
    """Count the fields that name tenants in a message and what it holds."""
    if depth > 4:
        return 0
    inner = [field.message_type for field in message.fields if field.message_type and field.message_type != message]
    return ("tenant" in message.fields_by_name) + sum(tenants_in(one, depth + 1) for one in inner)


@pytest.mark.parametrize(("service", "method"), METHODS)
def test_every_tenant_in_a_request_is_one_that_its_rule_looks_at(service: str, method: str) -> None:
    request = request_of(service, method).DESCRIPTOR  # type: ignore[attr-defined]
    rule = RULES[f"/{service}/{method}"]
    nested = [request.fields_by_name[name].message_type for name in NESTED if name in request.fields_by_name]
    looked_at = [request] if "tenant" in request.fields_by_name else [one for one in nested if one]
    count = sum("tenant" in message.fields_by_name for message in looked_at)
    assert tenants_in(request) == count
    assert (count > 0) == (rule.tenant in (TenantIn.FIELD, TenantIn.MESSAGES))


def test_what_has_no_rule_may_be_called_by_nobody() -> None:
    anybody = Principal("key:1", frozenset({Role.ADMIN}), None)
    with pytest.raises(PermissionDenied, match="New may be called by nobody"):
        authorize(anybody, "/mambasearch.v1.SearchService/New")


async def test_a_service_without_rules_answers_nobody() -> None:
    async def answer(request: bytes, context: object) -> bytes:
        return b"secret"

    def register(server: grpc.aio.Server) -> None:
        methods = {"Tell": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("other.Service", methods),))

    server = GrpcServer("other.Service", register, message_bytes_max=1024, calls_max=4)
    await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/other.Service/Tell")(b"")
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await server.stop()
