"""The command that containers ask for their health, against real servers: plain, over TLS, unhealthy, and none."""

import datetime
import ipaddress
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.health_check import main


@contextmanager
def served(status: int, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    servicer.set("", status)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = (
        server.add_secure_port("127.0.0.1:0", credentials) if credentials else server.add_insecure_port("127.0.0.1:0")
    )
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def certificate_of_an_authority() -> grpc.ServerCredentials:
    """A certificate for another name than the one that is asked, signed by an authority that nobody knows here."""
    now = datetime.datetime.now(datetime.UTC)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def sign(subject: str, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")]),
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]),
            public,
            x509.random_serial_number(),
            now - datetime.timedelta(days=1),
            now + datetime.timedelta(days=1),
        )
        names = x509.SubjectAlternativeName([x509.DNSName("search"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))])
        builder = builder.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        return builder.add_extension(names, critical=False).sign(authority, hashes.SHA256())

    shown = sign("service", key.public_key(), is_authority=False).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return grpc.ssl_server_credentials([(private, shown)])


def test_a_healthy_service(capsys: pytest.CaptureFixture[str]) -> None:
    with served(health_pb2.HealthCheckResponse.SERVING) as target:
        assert main([target]) == 0
        assert main([target, "--application", "encoder"]) == 0
    assert capsys.readouterr().out == "SERVING\nSERVING\n"


def test_one_that_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with served(health_pb2.HealthCheckResponse.NOT_SERVING) as target:
        assert main([target]) == 1
    assert capsys.readouterr().out == "NOT_SERVING\n"


def test_one_that_encrypts_under_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    with served(health_pb2.HealthCheckResponse.SERVING, certificate_of_an_authority()) as target:
        assert main([target, "--tls"]) == 0
        assert main([target]) == 1
    assert capsys.readouterr().out.startswith("SERVING\nUNAVAILABLE: ")


@pytest.mark.parametrize("arguments", [["127.0.0.1:1"], ["127.0.0.1:1", "--tls"]])
def test_nobody_is_there(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert "refused" in capsys.readouterr().out.lower()


def test_it_is_a_command_and_knows_an_address() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.health_check", "nonsense"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "target is 'nonsense'; HOST:PORT is expected." in done.stderr
