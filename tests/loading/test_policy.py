"""What a policy allows, and how it might be talked out of it."""

import socket
from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from ingest.documents import Document
from ingest.loaders import load_documents
from ingest.sources.policy import EVERYTHING, SourcePolicy, check_source
from tests.loading.files import the_error, write

WEB = SourcePolicy(frozenset(("https", "http")), frozenset(("docs.example.org", "*.example.net", "10.0.0.1")))
ANY_HOST = SourcePolicy(frozenset(("https", "http")), frozenset("*"))
BUCKETS = SourcePolicy(frozenset(("s3", "gs")), frozenset(("mine",)))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names mean; those that are none are addresses."""
    known: dict[str, list[str]] = {"docs.example.org": ["93.184.215.14"]}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: int, **more: int) -> list[object]:
        return [
            entry for address in known.get(host.rstrip("."), [host]) for entry in real(address, port, *rest, **more)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "a.txt", "file:///a", "http://a.org/", "https://a.org/", "s3://a/b", "gs://a/b", "x://y"]
)
def test_nothing_is_allowed_unless_said(source: str) -> None:
    with pytest.raises(InvalidInput, match="but allowed here is nothing") as error:
        check_source(source, SourcePolicy())
    assert error.value.field == "source"
    assert "allowed here is nothing" in the_error(load_documents([source], policy=SourcePolicy()))


def test_hosts_by_name(names: dict[str, list[str]]) -> None:
    names |= {"a.example.net": ["93.184.215.14"], "a.b.example.net": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"]}
    for source in ("https://docs.example.org/a", "HTTP://DOCS.example.org.:8080/a", "http://a.example.net"):
        check_source(source, WEB)
    check_source("https://a.b.example.net/", WEB)
    for host in ("example.net", "docs.example.org.evil.com", "evildocs.example.org", "evil-example.net", ""):
        with pytest.raises(InvalidInput, match="which is not among the hosts and buckets allowed here"):
            check_source(f"https://{host}/", WEB)
    for source in (
        "https://user@docs.example.org/",
        "https://docs.example.org:x@evil.com/",
        "https://a:b@docs.example.org",
    ):
        with pytest.raises(InvalidInput, match=r"holds a user's name or password|is no URL"):
            check_source(source, WEB)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%lo", "fc00::1",
        "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2002:a00:1::", "::127.0.0.1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_internal_addresses_are_refused_whatever_name_they_have(names: dict[str, list[str]], address: str) -> None:
    names["innocent.org"] = ["93.184.215.14", address]
    with pytest.raises(InvalidInput, match="an address of this machine or of a private network"):
        check_source("http://innocent.org/", ANY_HOST)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "localhost", "localhost."])
def test_other_ways_to_write_this_machine(host: str) -> None:
    with pytest.raises(InvalidInput, match=r"an address of this machine|no address is known"):
        check_source(f"http://{host}/", ANY_HOST)


def test_an_internal_host_can_be_allowed() -> None:
    policy = SourcePolicy(WEB.schemes, WEB.hosts, internal_addresses=True)
    check_source("http://10.0.0.1/", policy)
    with pytest.raises(InvalidInput, match="an address of this machine or of a private network"):
        check_source("http://10.0.0.1/", WEB)


def test_names_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(InvalidInput, match=r"of which no address is known \(.*Name or service not known\)"):
        check_source("https://docs.example.org/", WEB)
    for source in ("https://docs.example.org:99999/", "https://[::1/"):
        with pytest.raises(InvalidInput, match="is no URL"):
            check_source(source, WEB)
    with pytest.raises(InvalidInput, match="has 5026 characters; the limit is 4096"):
        check_source("https://docs.example.org/" + "x" * 5001, WEB)


def test_buckets() -> None:
    check_source("s3://mine/a/b.txt", BUCKETS)
    check_source("gs://mine/a", BUCKETS)
    for source, message in (
        ("s3://other/a", "is of 'other', which is not among"),
        ("s3://mine/a?endpoint_override=10.0.0.1&scheme=http", "says with . how the bucket is reached"),
        ("s3://key:secret@mine/a", "holds a user's name or password"),
        ("https://mine/a", "is read by 'https', but allowed here is gs, s3"),
    ):
        with pytest.raises(InvalidInput, match=message):
            check_source(source, BUCKETS)
    check_source("s3://any/a?endpoint_override=10.0.0.1", EVERYTHING)


def test_folders(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    write(inside / "sub" / "a.txt", "A")
    write(tmp_path / "secret.txt", "S")
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "folder").symlink_to(tmp_path)
    (inside / "loop").symlink_to(inside / "loop")
    (tmp_path / "alias").symlink_to(inside)
    policy = SourcePolicy(frozenset(("file",)), folders=(tmp_path / "alias",))
    for source in (inside / "sub" / "a.txt", f"file://{inside}/sub/%61.txt", f"{inside}/*/*.txt", inside):
        check_source(str(source), policy)
        found = load_documents([source], policy=policy)
        assert [item.text for item in found if isinstance(item, Document)] == ["A"]
    refused = [
        tmp_path / "secret.txt",
        inside / "link.txt",
        inside / "folder",
        f"{inside}/folder/*.txt",
        inside / ".." / "secret.txt",
        f"{inside}/../*.txt",
        f"file://{inside}/%2e%2e/secret.txt",
        "/",
        "/etc/*",
        "*.txt",
        tmp_path / "inside-not",
    ]
    for source in refused:
        assert "leads out of the folders allowed here" in the_error(load_documents([source], policy=policy))
    for source, message in (
        (inside / "loop", "leads nowhere"),
        (f"{inside}/\0", "leads nowhere"),
        (f"file://example.org{inside}", "is no URL of a file here"),
    ):
        assert message in the_error(load_documents([source], policy=policy))
