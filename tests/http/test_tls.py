"""HTTP over TLS: the certificate files of gRPC's, read again as they change; clients by their certificates."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from services.door import certificates
from services.door.audit import AuditLog
from services.door.authenticating import Authenticator
from services.door.certificates import CertificateFiles, ServerCertificates
from services.door.door import Door
from services.door.key_ring import KeyRing, create_key
from services.door.keys import KeyWishes
from services.door.places import Places
from services.door.principal import Limits, Role
from services.door.quotas import Quotas
from services.http.server import listening
from tests.http.serving import served
from tests.security.certificates import Authority, make_authority, replace

SEARCH = b'{"query": "apples"}'
HEAD = b"HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    monkeypatch.setattr(certificates, "LOOK_PERIOD_S", 0.0)
    return make_authority(tmp_path / "ca")


def trusting(authority: Authority, shown: CertificateFiles | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if shown:
        context.load_cert_chain(shown.cert, shown.key)
    return context


async def ask(port: int, context: ssl.SSLContext, request: bytes) -> tuple[bytes, int]:
    """Give the answer, and the serial number of the certificate that was shown."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    shown = writer.get_extra_info("peercert")
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10), int(shown["serialNumber"], 16)
    finally:
        writer.close()


async def test_a_new_certificate_is_shown_without_a_restart(authority: Authority) -> None:
    files = authority.sign("server")
    tls = ServerCertificates(files).ssl_context()
    async with served() as http, listening(http.app, "127.0.0.1", 0, tls) as port:
        answer, before = await ask(port, trusting(authority), b"GET /readyz " + HEAD + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        replace(files, authority.sign("renewed"))
        answer, after = await ask(port, trusting(authority), b"GET /readyz " + HEAD + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert before != after


async def test_plain_text_and_old_tls_are_refused(authority: Authority) -> None:
    tls = ServerCertificates(authority.sign("server")).ssl_context()
    async with served() as http, listening(http.app, "127.0.0.1", 0, tls) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz " + HEAD + b"\r\n")
        assert b"200" not in await asyncio.wait_for(reader.read(), 10)
        writer.close()
        old = trusting(authority)
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            old.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(port, old, b"GET /readyz " + HEAD + b"\r\n")


async def test_a_client_is_known_by_its_certificate(authority: Authority, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    create_key(keys, KeyWishes("app", (Role.SEARCH, Role.INGEST), ("acme",), certificate="app.example"))
    door = Door(Authenticator(ring=KeyRing(keys)), Quotas(Limits()), AuditLog("", ""), Places(10))
    server = authority.sign("server")
    tls = ServerCertificates(CertificateFiles(server.cert, server.key, authority.path)).ssl_context()
    async with served(door) as http, listening(http.app, "127.0.0.1", 0, tls) as port:
        known = trusting(authority, authority.sign("app", common_name="app.example"))
        head = b"%scontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (HEAD, len(SEARCH))
        answer, _ = await ask(port, known, b"POST /v1/search " + head + SEARCH)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert (http.search.callers, http.search.asked[0].tenant) == (["certificate:app.example"], "acme")

        # The worker would see our own certificate, and take the caller for us.
        answer, _ = await ask(port, known, b"GET /v1/jobs " + HEAD + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"with a key or a token, not with a certificate" in answer
        assert not http.ingest.metadata

        other = trusting(authority, authority.sign("other", common_name="other.example"))
        answer, _ = await ask(port, other, b"POST /v1/search " + head + SEARCH)
        assert answer.startswith(b"HTTP/1.1 401 ")
        # In TLS 1.3 the client's handshake has ended when the server asks in vain: an alert, or only the end, follows.
        answer = b""
        with suppress(ssl.SSLError, ConnectionError):
            answer, _ = await ask(port, trusting(authority), b"GET /readyz " + HEAD + b"\r\n")
        assert not answer
