"""The certificate that a server shows: read again when its files change, and never given up for a broken one.

Connections that are up keep the one that they began with; each new one gets the newest.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from encoder.errors import InvalidInput
from services.door.file_mark import file_mark

LOOK_PERIOD_S = 1.0
_BEFORE_FREED_S = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a server's certificate is (PEM), its key, and the authorities that clients' certificates must be of."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    cert: bytes
    key: bytes
    client_ca: bytes | None


class ServerCertificates:
    """The newest good certificate of some files. May be asked from any thread: gRPC does, at each handshake."""

    def __init__(self, files: CertificateFiles, now: Callable[[], float] = time.monotonic) -> None:
        """Read the files; :class:`InvalidInput` says what is wrong with them."""
        self._files, self._now = files, now
        self._turn = threading.Lock()
        self._seen = self._marks()
        self._loaded = _load(files)
        self._looked_at = now()
        self.version = 1

    @property
    def needs_clients(self) -> bool:
        """Whether clients must show certificates, too."""
        return self._files.client_ca is not None

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Make credentials for one port: TLS 1.2 or newer, HTTP/2 by ALPN, both as gRPC has them."""
        given = self.version

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            self.look()
            if given == self.version:
                return None
            # Whoever has asked before, and was told nothing, is about to take what gRPC frees when we answer
            # (github.com/grpc/grpc/issues/36693); whoever asks now waits.
            time.sleep(_BEFORE_FREED_S)
            given = self.version
            return self._configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            newer,  # type: ignore[arg-type] # None is for no change
            require_client_authentication=self.needs_clients,
        )

    def ssl_context(self) -> ssl.SSLContext:
        """Make a context for a server in Python; each handshake is done with the newest certificate."""
        context = self._new_context()
        held = (self.version, context)

        def swap(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, first: ssl.SSLContext) -> None:
            nonlocal held
            del name, first
            self.look()
            if held[0] != self.version:
                # They may change again at this very moment: the next handshake tries again then.
                with contextlib.suppress(OSError):
                    held = (self.version, self._new_context())
            connection.context = held[1]

        context.sni_callback = swap
        return context

    def look(self) -> None:
        """Read the files again where they have changed, at most once in ``LOOK_PERIOD_S``."""
        with self._turn:
            if self._now() - self._looked_at < LOOK_PERIOD_S:
                return
            self._looked_at = self._now()
            marks = self._marks()
            if marks == self._seen:
                return
            try:
                loaded = _load(self._files)
            except InvalidInput as error:
                # The one file may be there and the other still on its way: they are looked at again.
                logger.error("the certificate stays as it was: %s", error)  # noqa: TRY400 - the message says all
                return
            self._seen = marks
            if loaded != self._loaded:
                self._loaded = loaded
                self.version += 1
                logger.info("read %s again: new connections are shown this certificate", self._files.cert)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        loaded = self._loaded
        return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.cert)], loaded.client_ca)

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._files.cert, self._files.key)
        if self._files.client_ca is not None:
            context.load_verify_locations(self._files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _marks(self) -> tuple[tuple[int, int, int] | None, ...]:
        files = (self._files.cert, self._files.key, self._files.client_ca)
        return tuple(file_mark(file) for file in files if file is not None)


def _load(files: CertificateFiles) -> _Loaded:
    """Read and check the files; the messages name files and quote nothing of them."""
    cert, key = _read("tls_cert", files.cert), _read("tls_key", files.key)
    try:
        first = x509.load_pem_x509_certificates(cert)[0]
    except (ValueError, IndexError):
        raise InvalidInput("tls_cert", f"tls_cert {files.cert} holds no certificate in PEM.") from None
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, NotImplementedError):
        message = f"tls_key {files.key} holds no private key in PEM, or one with a password; give one without."
        raise InvalidInput("tls_key", message) from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        raise InvalidInput("tls_key", f"tls_key {files.key} is not the key of the certificate in {files.cert}.")
    client_ca = None
    if files.client_ca is not None:
        client_ca = _read("tls_client_ca", files.client_ca)
        try:
            x509.load_pem_x509_certificates(client_ca)
        except ValueError:
            message = f"tls_client_ca {files.client_ca} holds no certificate in PEM."
            raise InvalidInput("tls_client_ca", message) from None
    return _Loaded(cert, key, client_ca)


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(setting, f"{setting} {path} cannot be read ({error.strerror}).") from None
