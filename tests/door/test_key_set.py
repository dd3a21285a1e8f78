"""The keys that tokens are signed with: fetched, kept, asked for again, and never for everybody."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from encoder.errors import InvalidInput, Unavailable
from services.door import jwks
from services.door.door import make_authenticator
from services.door.jwks import KeySet, fetcher, read_keys
from services.door.settings import DoorSettings
from tests.security.certificates import Authority, make_authority

PUBLIC = ec.generate_private_key(ec.SECP256R1()).public_key()


def key_set(*ids: str) -> bytes:
    return json.dumps({"keys": [{**ECAlgorithm.to_jwk(PUBLIC, as_dict=True), "kid": name} for name in ids]}).encode()


class Source:
    """What a set is fetched from, and how often."""

    def __init__(self, *ids: str) -> None:
        self.data: bytes | None = key_set(*ids)
        self.fetched = 0
        self.now = 0.0

    def fetch(self) -> bytes:
        self.fetched += 1
        if self.data is None:
            raise OSError("away")
        return self.data

    def make(self) -> KeySet:
        return KeySet(self.fetch, now=lambda: self.now)


async def test_keys_are_fetched_once_and_again_as_they_age() -> None:
    source = Source("a")
    keys = source.make()
    for _ in range(5):
        assert await keys.find("a")
    assert source.fetched == 1
    source.now = jwks.REFRESH_S + 1
    assert await keys.find("a")
    assert keys._refreshing is not None
    await keys._refreshing
    assert source.fetched == 2


async def test_an_unknown_id_has_them_fetched_once_in_a_while() -> None:
    source = Source("a")
    keys = source.make()
    await keys.find("a")
    source.now = jwks.PAUSE_S
    source.data = key_set("a", "b")
    assert await keys.find("b")
    assert source.fetched == 2
    assert not any(await asyncio.gather(*(keys.find(f"x{number}") for number in range(100))))
    assert source.fetched == 2
    source.now += jwks.PAUSE_S
    assert not any(await asyncio.gather(*(keys.find(f"x{number}") for number in range(100))))
    assert source.fetched == 3


async def test_keys_stay_good_for_a_while_where_their_source_is_away(caplog: pytest.LogCaptureFixture) -> None:
    source = Source("a")
    keys = source.make()
    await keys.find("a")
    source.data = None
    source.now = jwks.REFRESH_S + 1
    assert await keys.find("a")
    source.now = jwks.KEPT_S - 1
    assert await keys.find("a")
    assert keys._refreshing is not None
    await keys._refreshing
    assert "could not be had (OSError)" in caplog.text
    source.now = jwks.KEPT_S + jwks.PAUSE_S
    with pytest.raises(Unavailable, match="cannot be had now"):
        await keys.find("a")
    source.data = key_set("a")
    source.now += jwks.PAUSE_S
    assert await keys.find("a")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": 5}', b"\xff", b"[" * 100_000])
async def test_what_is_no_key_set_is_not_taken(data: bytes) -> None:
    source = Source()
    source.data = data
    with pytest.raises(Unavailable):
        await source.make().find("a")


def test_keys_for_other_uses_are_left_out() -> None:
    entry = {**ECAlgorithm.to_jwk(PUBLIC, as_dict=True)}
    entries: list[Any] = [
        {**entry, "kid": "good"},
        {**entry, "kid": "enc", "use": "enc"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
        {**entry, "kid": "other", "alg": "ES512"},
        {"kty": "EC", "kid": "broken"},
        7,
    ]
    assert set(read_keys(json.dumps({"keys": entries[:5]}).encode())) == {"good"}
    with pytest.raises(ValueError, match="not a JSON Web Key Set"):
        read_keys(json.dumps({"keys": entries}).encode())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/keys?x=1")
            self.end_headers()
            return
        data = key_set("a") if self.path == "/keys?x=1" else b"x" * (jwks.BYTES_MAX + 5)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def https(authority: Authority) -> Iterator[str]:
    files = authority.sign("https")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_keys_come_from_an_https_address_that_is_vouched_for(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    with https(authority) as address:
        assert set(read_keys(fetcher(f"{address}/keys?x=1", authority.path)())) == {"a"}
        for path in ("moved", "large"):
            with pytest.raises(ValueError, match="HTTP status"):
                fetcher(f"{address}/{path}", authority.path)()
        with pytest.raises(ssl.SSLError):
            fetcher(f"{address}/keys?x=1", make_authority(tmp_path / "other").path)()


def test_settings_of_tokens_are_checked(tmp_path: Path) -> None:
    good = {"jwt_issuer": "i", "jwt_audience": "a"}
    for given, words in (
        ({"jwt_jwks": "http://x/keys", **good}, "an absolute path or an https address"),
        ({"jwt_jwks": "keys.json", **good}, "an absolute path or an https address"),
        ({"jwt_jwks": "https://x/keys"}, "jwt_jwks needs jwt_issuer and jwt_audience"),
    ):
        with pytest.raises(InvalidInput, match=words):
            DoorSettings.load(given)
    with pytest.raises(InvalidInput, match="is no file"):
        make_authenticator(DoorSettings.load({"jwt_jwks": str(tmp_path / "none.json"), **good}))
    (tmp_path / "bad.json").write_text("nonsense")
    with pytest.raises(InvalidInput, match="cannot be read as a JSON Web Key Set"):
        make_authenticator(DoorSettings.load({"jwt_jwks": str(tmp_path / "bad.json"), **good}))
