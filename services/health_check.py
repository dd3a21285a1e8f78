"""Whether a service of ours is healthy, for those who can only run a command: ``python -m services.health_check``.

Those are containers and Kubernetes' exec probes: its own gRPC probe speaks no TLS. The exit code is 0 where
``grpc.health.v1`` says SERVING, 1 where it says anything else or nothing, and 2 where the command is wrong. A check of
oneself encrypts but does not verify whom it asks: nobody stands between, and the certificate is in the name that others
use.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.reading_settings import check_target

TIMEOUT_S = 4.0


def check(target: str, *, tls: bool, application: str, timeout_s: float = TIMEOUT_S) -> str:
    """Ask; give what health says, or why nobody said anything."""
    metadata = (("application", application),) if application else ()
    try:
        with _channel(target, tls=tls, timeout_s=timeout_s) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=timeout_s)
    except (grpc.RpcError, OSError) as error:
        return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _channel(target: str, *, tls: bool, timeout_s: float) -> grpc.Channel:
    if not tls:
        return grpc.insecure_channel(target)
    host, _, port = target.rpartition(":")
    # The certificate that is shown is the one that is trusted, by its own first name.
    shown = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=timeout_s)
    credentials = grpc.ssl_channel_credentials(shown.encode())
    return grpc.secure_channel(target, credentials, options=[("grpc.ssl_target_name_override", _first_name(shown))])


def _first_name(certificate: str) -> str:
    from cryptography import x509

    loaded = x509.load_pem_x509_certificate(certificate.encode())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.DNSName)[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="health_check", description="Whether a service of mamba-search is healthy.")
    parser.add_argument("target", help="HOST:PORT")
    parser.add_argument("--tls", action="store_true", help="the service encrypts")
    parser.add_argument("--application", default="", help="of the encoder service: which of its applications")
    given = parser.parse_args(arguments)
    try:
        check_target(given.target)
    except ValueError as error:
        parser.error(f"target is {given.target!r}; {error}.")
    found = check(given.target, tls=given.tls, application=given.application)
    sys.stdout.write(found + "\n")
    return 0 if found == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
