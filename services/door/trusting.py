"""How a client of a service of ours knows whom it speaks to: what a connection over TLS needs. Knows no service."""

from __future__ import annotations

from pathlib import Path

import grpc

from encoder.errors import InvalidInput
from services.setting_groups import TrustSettings


def channel_credentials(trust: TrustSettings) -> grpc.ChannelCredentials | None:
    """Make what a connection over TLS needs; None where there is to be none.

    :class:`InvalidInput` for files that cannot be read.
    """
    if not (trust.use_tls or trust.tls_ca or trust.tls_client_cert):
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=read_file("tls_ca", trust.tls_ca),
        private_key=read_file("tls_client_key", trust.tls_client_key),
        certificate_chain=read_file("tls_client_cert", trust.tls_client_cert),
    )


def read_file(setting: str, path: Path | None) -> bytes | None:
    """Read the file that a setting names; None where it names none."""
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(setting, f"{setting} {path} cannot be read ({error.strerror}).") from None
