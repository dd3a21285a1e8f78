"""Encryption: nothing older, nothing plain, no other certificate; new ones while calls go on; clients' certificates."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2

from encoder.errors import InvalidInput
from services.door.certificates import CertificateFiles, ServerCertificates
from services.door.key_ring import create_key
from services.door.keys import KeyWishes
from services.door.principal import Role
from services.settings import IndexOwnerSettings, IngestSettings, SearchSettings
from tests.security.certificates import Authority, make_authority, replace, serial_number
from tests.security.secured import Secured, open_channel, secured

ROOT = Path(__file__).parents[2]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
QUERY = search_pb2.SearchRequest(query="words", mode=search_pb2.SEARCH_MODE_SPARSE)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> CertificateFiles:
    return authority.sign("server")


def trusting(authority: Authority, client: CertificateFiles | None = None) -> grpc.ChannelCredentials:
    key, chain = (client.key.read_bytes(), client.cert.read_bytes()) if client else (None, None)
    return grpc.ssl_channel_credentials(authority.path.read_bytes(), key, chain)


@pytest.fixture(scope="module")
def services(
    authority: Authority, files: CertificateFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    with secured(folder, credentials=trusting(authority), tls_cert=files.cert, tls_key=files.key) as found:
        yield found


def connect(target: str, context: ssl.SSLContext) -> tuple[str | None, str | None, bytes, int]:
    """Shake hands, ask for HTTP/2; give the versions that were agreed on, the first bytes of the answer, the serial."""
    host, _, port = target.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=host) as end,
    ):
        end.sendall(PREFACE)
        shown = end.getpeercert()
        serial = int(str(shown["serialNumber"]), 16) if shown else 0
        return end.version(), end.selected_alpn_protocol(), end.recv(64), serial


def context_of(authority: Authority, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def test_calls_are_encrypted_and_answered(services: Secured, authority: Authority) -> None:
    assert services.caller(Role.SEARCH).refusal("Search", QUERY) == ("OK", "")
    version, protocol, answer, _ = connect(services.search, context_of(authority, "h2"))
    assert (version, protocol) == ("TLSv1.3", "h2")
    assert answer


def test_tls_1_2_is_the_oldest_that_is_spoken(services: Secured, authority: Authority) -> None:
    context = context_of(authority, "h2")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert connect(services.search, context)[0] == "TLSv1.2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(services.search, context)


@pytest.mark.parametrize("protocols", [(), ("http/1.1",), ("h2c",)])
def test_who_does_not_agree_on_http_2_gets_no_answer(
    services: Secured, authority: Authority, protocols: tuple[str, ...]
) -> None:
    try:
        _, protocol, answer, _ = connect(services.search, context_of(authority, *protocols))
    except (ssl.SSLError, ConnectionError):
        return
    assert (protocol, answer) == (None, b"")


def test_plain_text_gets_no_answer(services: Secured) -> None:
    host, _, port = services.search.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(PREFACE)
        with contextlib.suppress(ConnectionError):
            assert raw.recv(64) == b""
    with grpc.insecure_channel(services.search) as channel:
        caller = services.caller(Role.SEARCH)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as failure:
            stub.Check(health_pb2.HealthCheckRequest(), metadata=caller.metadata, timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_refuses_a_certificate_of_another_authority(services: Secured, tmp_path: Path) -> None:
    with open_channel(services.search, trusting(make_authority(tmp_path))) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as failure:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


def test_new_certificates_are_shown_while_calls_go_on(
    services: Secured, authority: Authority, files: CertificateFiles
) -> None:
    caller, done = services.caller(Role.SEARCH, Role.INGEST), threading.Event()
    answered, failures = [0], []

    def call_again_and_again(*, anew: bool) -> None:
        channel = open_channel(services.search, trusting(authority))
        while not done.is_set():
            if anew:
                channel.close()
                channel = open_channel(services.search, trusting(authority))
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
                answered[0] += 1
            except grpc.RpcError as error:
                failures.append(str(error))
        channel.close()

    def documents() -> Iterator[ingest_pb2.IngestDocumentsRequest]:
        number = 0
        while not done.is_set():
            number += 1
            yield ingest_pb2.IngestDocumentsRequest(document_id=f"d{number}", text="words")
            time.sleep(0.05)

    stub: Any = ingest_pb2_grpc.IngestServiceStub(services.ingest_channel)  # type: ignore[no-untyped-call]
    stream = stub.IngestDocuments(documents(), metadata=caller.metadata, timeout=60)
    workers = [threading.Thread(target=call_again_and_again, kwargs={"anew": anew}) for anew in (False, True, True)]
    for worker in workers:
        worker.start()
    shown = []
    for number in range(5):
        renewed = authority.sign(f"renewed-{number}")
        replace(files, renewed)
        time.sleep(0.2)
        shown.append(connect(services.search, context_of(authority, "h2"))[3] == serial_number(renewed))
    done.set()
    acknowledged = len(list(stream))
    for worker in workers:
        worker.join()
    assert shown == [True] * 5
    assert failures == []
    assert answered[0] > 20
    assert acknowledged > 5


def test_many_who_connect_while_certificates_are_renewed_do_no_harm(authority: Authority) -> None:
    """gRPC frees a certificate that another connection is about to take (github.com/grpc/grpc/issues/36693)."""
    files, context, done = authority.sign("crowd"), context_of(authority, "h2"), threading.Event()
    command = [sys.executable, "-m", "tests.security.tls_server", str(files.cert), str(files.key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        target = f"127.0.0.1:{server.stdout.readline().strip()}"
        shown: set[int] = set()

        def connect_again_and_again() -> None:
            while not done.is_set() and server.poll() is None:
                with contextlib.suppress(OSError):
                    shown.add(connect(target, context)[3])

        workers = [threading.Thread(target=connect_again_and_again) for _ in range(16)]
        for worker in workers:
            worker.start()
        renewed = [authority.sign(f"crowd-{number}") for number in range(20)]
        for each in renewed:
            replace(files, each)
            time.sleep(0.2)
        done.set()
        for worker in workers:
            worker.join()
        ended = server.poll()
        server.terminate()
    assert ended is None
    assert shown & {serial_number(each) for each in renewed}


def test_a_broken_certificate_changes_nothing(
    services: Secured, authority: Authority, files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    good = serial_number(files)
    before = (files.cert.read_bytes(), files.key.read_bytes())
    other = authority.sign("other")
    for name, data in ((files.cert, b"nonsense"), (files.key, other.key.read_bytes()), (files.key, b"")):
        name.write_bytes(data)
        with caplog.at_level(logging.ERROR):
            assert connect(services.search, context_of(authority, "h2"))[3] == good
        assert "the certificate stays as it was" in caplog.text
        caplog.clear()
        files.cert.write_bytes(before[0])
        files.key.write_bytes(before[1])
    replace(files, other)
    assert connect(services.search, context_of(authority, "h2"))[3] == serial_number(other)


def test_a_context_of_python_follows_the_files_too(authority: Authority, tmp_path: Path) -> None:
    files = authority.sign("http")
    context = ServerCertificates(files, now=lambda: time.monotonic() * 1e6).ssl_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"

        def serve() -> None:
            for _ in range(2):
                raw, _ = listener.accept()
                with raw, context.wrap_socket(raw, server_side=True) as end:
                    end.recv(64)
                    end.sendall(b"hello")

        server = threading.Thread(target=serve)
        server.start()
        seen.append(connect(target, context_of(authority))[3] == serial_number(files))
        replace(files, authority.sign("http-2"))
        seen.append(connect(target, context_of(authority))[3] == serial_number(files))
        server.join()
    assert seen == [True, True]


def test_clients_show_certificates_where_they_must(authority: Authority, tmp_path: Path) -> None:
    server, client = authority.sign("mtls"), authority.sign("client", common_name="app.example")
    stranger = make_authority(tmp_path / "stranger").sign("client", common_name="app.example")
    settings = {"tls_cert": server.cert, "tls_key": server.key, "tls_client_ca": authority.path}
    with secured(tmp_path, credentials=trusting(authority, client), **settings) as services:
        caller = services.with_credential(None)
        # TLS lets it in; the door does not know it yet.
        assert caller.refusal("Search", QUERY)[0] == "UNAUTHENTICATED"
        wishes = KeyWishes(name="app", roles=(Role.SEARCH,), tenants=("default",), certificate="app.example")
        assert create_key(services.keys_file, wishes)[1] is None
        assert caller.refusal("Search", QUERY) == ("OK", "")
        assert caller.refusal("ListJobs", ingest_pb2.ListDocumentsRequest())[0] == "PERMISSION_DENIED"
        for credentials in (trusting(authority), trusting(authority, stranger)):
            with open_channel(services.search, credentials) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                with pytest.raises(grpc.RpcError) as failure:
                    stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda files: files.cert.write_text("x"), "holds no certificate in PEM"),
        (lambda files: files.key.write_text("x"), "holds no private key in PEM"),
        (lambda files: files.key.unlink(), "cannot be read (No such file"),
        (lambda files: files.cert.write_bytes(files.cert.with_name("server.pem").read_bytes()), "is not the key of"),
    ],
)
def test_a_certificate_that_is_no_good_is_refused_at_the_start(
    authority: Authority, files: CertificateFiles, damage: Any, words: str
) -> None:
    broken = authority.sign("broken")
    damage(broken)
    with pytest.raises(InvalidInput, match=re.escape(words)):
        ServerCertificates(broken)


@pytest.mark.parametrize("settings", [SearchSettings, IngestSettings])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "search.example"])
def test_a_door_that_is_not_secure_listens_on_this_machine_only(settings: Any, host: str, tmp_path: Path) -> None:
    name = "search_host" if settings is SearchSettings else "ingest_host"
    tls = {"tls_cert": tmp_path / "c.pem", "tls_key": tmp_path / "k.pem"}
    for given, lacking in (
        ({}, "tls_cert and tls_key, and keys_file or jwt_jwks"),
        (tls, "keys_file or jwt_jwks"),
        ({"keys_file": tmp_path / "keys.json"}, "tls_cert and tls_key"),
    ):
        with pytest.raises(InvalidInput, match=f"{name} is .*give {lacking}, or set allow_insecure"):
            settings.load({name: host, **given})
    assert settings.load({name: host, **tls, "keys_file": tmp_path / "keys.json"})
    assert settings.load({name: host, "allow_insecure": True})
    for own in ("127.0.0.1", "::1", "[::1]", "localhost", "127.8.8.8"):
        assert settings.load({name: own})


def test_the_index_owner_listens_on_this_machine_only() -> None:
    with pytest.raises(InvalidInput, match=r"index_host is 0\.0\.0\.0, which others reach"):
        IndexOwnerSettings.load({"index_host": "0.0.0.0"})
    assert IndexOwnerSettings.load({"index_host": "0.0.0.0", "allow_insecure": True})
