"""Who is known, and who is not: keys, tokens, certificates; expired, revoked, forged, none."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, jobs_pb2, search_pb2

from services.door.key_ring import revoke_key
from services.door.principal import Role
from tests.security.secured import INGEST_SERVICE, SEARCH_SERVICE, Secured, secured

QUERY = search_pb2.SearchRequest(query="words", mode=search_pb2.SEARCH_MODE_SPARSE)
NOBODY = "UNAUTHENTICATED"
ISSUER, AUDIENCE = "https://issuer.example", "mamba-search"
PRIVATE = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
WRITERS = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("authn")
    key_set = [
        {**WRITERS[name].to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"}  # type: ignore[attr-defined]
        for name, key in PRIVATE.items()
    ]
    (folder / "jwks.json").write_text(json.dumps({"keys": key_set}))
    with secured(
        folder,
        jwt_jwks=str(folder / "jwks.json"),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_leeway_s=1.0,
    ) as found:
        yield found


def claims(**changed: Any) -> dict[str, Any]:
    now = time.time()
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": now + 60, "roles": ["search"], "tenants": ["default"]}
    return {name: value for name, value in (made | changed).items() if value is not None}


def token(algorithm: str = "ES256", key: Any = None, kid: str | None = None, **changed: Any) -> str:
    key = PRIVATE[algorithm] if key is None else key
    return jwt.encode(claims(**changed), key, algorithm, headers={"kid": algorithm if kid is None else kid})


def test_a_key_is_good_until_it_is_revoked(services: Secured) -> None:
    caller = services.caller(Role.SEARCH)
    assert caller.refusal("Search", QUERY) == ("OK", "")
    assert caller.key is not None
    revoke_key(services.keys_file, caller.key.split("_")[1])
    code, words = caller.refusal("Search", QUERY)
    assert (code, words) == (NOBODY, "The key or token is not good; it is unknown, or was revoked.")


def test_an_expired_key_is_refused(services: Secured) -> None:
    caller = services.caller(Role.SEARCH, expires_at=time.time() - 1)
    assert caller.refusal("Search", QUERY) == (NOBODY, "The key or token has expired; get a new one.")


def test_what_is_not_shown_or_not_so_is_refused_alike(services: Secured) -> None:
    key = services.caller(Role.SEARCH).key
    assert key is not None
    answers = set()
    for shown in (key[:-1] + ("A" if key[-1] != "A" else "B"), "ms_" + "0" * 12 + key[15:], "nonsense", "a.b.c"):
        code, words = services.with_credential(shown).refusal("Search", QUERY)
        assert code == NOBODY
        assert shown not in words
        answers.add(words)
    # A wrong secret, an unknown id and what is no key at all look the same.
    assert answers == {"The key or token is not good; it is unknown, or was revoked."}
    nobody = services.with_credential(None)
    assert nobody.refusal("Search", QUERY)[0] == NOBODY
    for authorization in (key, f"Basic {key}", "Bearer", "Bearer ", f"Bearer {'x' * 9000}"):
        assert nobody.refusal("Search", QUERY, (("authorization", authorization),))[0] == NOBODY
    twice = (("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}"))
    assert nobody.refusal("Search", QUERY, twice)[0] == NOBODY


def test_every_method_wants_to_know_who_calls(services: Secured) -> None:
    nobody = services.with_credential(None)
    for service in (SEARCH_SERVICE, INGEST_SERVICE):
        for method in service.methods:
            request = method.input_type._concrete_class()
            assert nobody.refusal(method.name, request)[0] == NOBODY, method.name


def test_health_is_open_and_reflection_is_for_who_is_known(services: Secured) -> None:
    stub: Any = health_pb2_grpc.HealthStub(services.search_channel)
    assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    known = services.caller(Role.SEARCH)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    reflect: Any = reflection_pb2_grpc.ServerReflectionStub(services.search_channel).ServerReflectionInfo
    names = next(iter(reflect(iter([asked]), metadata=known.metadata))).list_services_response.service
    assert "mambasearch.v1.SearchService" in {one.name for one in names}
    with pytest.raises(grpc.RpcError) as failure:
        list(reflect(iter([asked])))
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_token_of_the_issuer_is_good(services: Secured, algorithm: str) -> None:
    assert services.with_credential(token(algorithm)).refusal("Search", QUERY) == ("OK", "")


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (lambda: token(exp=time.time() - 60), "has expired"),
        (lambda: token(nbf=time.time() + 60), "its time has not come"),
        (lambda: token(iss="https://evil.example"), "another issuer"),
        (lambda: token(aud="other"), "another audience"),
        (lambda: token(exp=None), "needs the claims"),
        (lambda: token(sub=None), "needs the claims"),
        (lambda: token(key=ec.generate_private_key(ec.SECP256R1())), "signature or form is wrong"),
        (lambda: token(kid="unknown"), "by no key of the issuer"),
        (lambda: token("RS256", kid="ES256"), "by no key of the issuer"),
        (lambda: token(tenants=["../other"]), "no tenant's name"),
        (lambda: jwt.encode(claims(), None, "none", headers={"kid": "ES256"}), "must be signed with one of"),
        (lambda: jwt.encode(claims(), "s" * 64, "HS256", headers={"kid": "ES256"}), "must be signed with one of"),
        (lambda: token()[:-10] + "A" * 10, "signature or form is wrong"),
    ],
)
def test_a_token_that_is_not_is_refused(services: Secured, shown: Any, words: str) -> None:
    code, told = services.with_credential(shown()).refusal("Search", QUERY)
    assert code == NOBODY
    assert words in told
    assert "eyJ" not in told


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(services: Secured) -> None:
    public = (
        PRIVATE["RS256"]
        .public_key()
        .public_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )

    def part(value: Any) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "kid": "RS256"}) + b"." + part(claims())
    forged = signed + b"." + base64.urlsafe_b64encode(hmac.digest(public, signed, hashlib.sha256)).rstrip(b"=")
    assert services.with_credential(forged.decode()).refusal("Search", QUERY)[0] == NOBODY


def test_a_stream_ends_when_its_key_is_revoked(services: Secured) -> None:
    caller = services.caller(Role.INGEST)
    assert caller.key is not None
    ids = iter(range(1000))

    def documents() -> Iterator[ingest_pb2.IngestDocumentsRequest]:
        for number in ids:
            if number == 3:
                revoke_key(services.keys_file, str(caller.key).split("_")[1])
            time.sleep(0.05)
            yield ingest_pb2.IngestDocumentsRequest(document_id=f"s{number}", text="words")

    stub: Any = ingest_pb2_grpc.IngestServiceStub(services.ingest_channel)  # type: ignore[no-untyped-call]
    with pytest.raises(grpc.RpcError) as failure:
        list(stub.IngestDocuments(documents(), metadata=caller.metadata, timeout=30))
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert next(ids) < 20


def test_a_watch_ends_when_its_key_expires(services: Secured, tmp_path: Path) -> None:
    admin = services.caller(Role.INGEST)
    (tmp_path / "a.txt").write_text("words")
    job = admin.job(str(tmp_path / "a.txt"))
    late = services.caller(Role.INGEST, expires_at=time.time() + 0.3)
    assert late.refusal("WatchJob", jobs_pb2.WatchJobRequest(job_id=job.job_id)) == ("OK", "")
    time.sleep(0.4)
    assert late.refusal("WatchJob", jobs_pb2.WatchJobRequest(job_id=job.job_id))[0] == NOBODY
