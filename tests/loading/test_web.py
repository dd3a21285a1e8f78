"""Files of the web, from a server of this machine."""

import socket
from pathlib import Path

import pytest

from ingest.loaders import load_documents
from ingest.sources.policy import EVERYTHING, SourcePolicy
from tests.loading.files import load, make_pdf, the_document, the_error
from tests.loading.web_server import Answer, serving

PAGE = Answer(b"<title>Page</title><p>text", "text/html; charset=utf-8")


def test_files_of_the_web() -> None:
    answers = {
        "/page?x=1": PAGE,
        "/a%20b.pdf": Answer(make_pdf("PDF"), "application/octet-stream"),
        "/rows": Answer(b'{"id": "r", "text": "R"}\n', "application/x-ndjson"),
        "/": Answer(b"plain", "text/plain"),
    }
    with serving(answers) as (place, requests):
        found = load(
            f"http://{place}/page?x=1#part", f"http://{place}/a b.pdf", f"http://{place}/rows", f"http://{place}"
        )
        assert requests == list(answers)
    documents = [the_document([item]) for item in found]
    assert [document.text for document in documents] == ["text", "PDF", "R", "plain"]
    assert [document.title for document in documents] == ["Page", "a b", "", place]
    assert documents[0].document_id == f"http://{place}/page?x=1"
    assert documents[0].source == f"http://{place}/page?x=1#part"
    assert documents[0].metadata == {}
    assert documents[2].source == f"http://{place}/rows:1"


def test_answers_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sources.web.CONTAINER_BYTES_MAX", 1000)
    answers = {
        "/broken": Answer(status=500),
        "/image": Answer(b"x", "image/png"),
        "/large": Answer(b"x" * 1001, "text/plain"),
        "/endless": Answer(b"x" * 2000, "text/plain", headers={"Content-Length": ""}),
        "/short": Answer(b"x", "text/plain", length=500),
        "/packed": Answer(b"x", "text/plain", headers={"Content-Encoding": "gzip"}),
        "/loop": Answer(status=302, headers={"Location": "/loop"}),
        "/file": Answer(status=302, headers={"Location": "file:///etc/passwd"}),
        "/s3": Answer(status=302, headers={"Location": "s3://bucket/a.txt"}),
        "/nowhere": Answer(status=302),
        "/empty.txt": Answer(b"", "text/plain"),
    }
    messages = [
        "was answered with status 500",
        "is of the type 'image/png', which is none to read",
        "has more than 1000 bytes, the limit of a file of the web; download it",
        "has more than 1000 bytes",
        "ended 499 bytes too early",
        "comes compressed (gzip), which was not asked for",
        "is sent on more than 5 times",
        "is sent on to file:///etc/passwd, which is not of the web",
        "is sent on to s3://bucket/a.txt, which is not of the web",
        "was answered with status 302",
        "is empty; it holds no document",
    ]
    with serving(answers) as (place, _):
        for path, message in zip(answers, messages, strict=True):
            assert message in the_error(load(f"http://{place}{path}"))
        missing = the_error(load(f"http://{place}/missing"))
    assert missing == f"http://{place}/missing was answered with status 404."
    assert "cannot be fetched (ConnectionRefusedError" in the_error(load(f"http://{place}/page"))


def test_redirects_are_followed_under_the_policy() -> None:
    with serving({"/page.html": PAGE}) as (place, _):
        port = place.partition(":")[2]
        here = {"/a": Answer(status=301, headers={"Location": f"http://localhost:{port}/page.html"})}
        with serving(here) as (first, _):
            assert the_document(load(f"http://{first}/a")).text == "text"
            policy = SourcePolicy(frozenset(("http",)), frozenset(("127.0.0.1",)), internal_addresses=True)
            message = the_error(load_documents([f"http://{first}/a"], policy=policy))
    assert message.startswith(f"http://localhost:{port}/page.html is of 'localhost', which is not among the hosts")


def test_a_name_that_changes_its_meaning_leads_nowhere_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is connected to was looked up and checked at once: a second look-up would be too late."""
    with serving({"/page.html": PAGE}) as (place, requests):
        port = int(place.partition(":")[2])
        meanings = ["93.184.215.14", "127.0.0.1", "127.0.0.1"]

        def look_up(*_: object, **__: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (meanings.pop(0), port))]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        policy = SourcePolicy(frozenset(("http",)), frozenset("*"))
        message = the_error(load_documents([f"http://rebinding.org:{port}/page.html"], policy=policy))
        assert "leads to 127.0.0.1, an address of this machine" in message
        assert requests == []


def test_an_answer_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sources.web.TOTAL_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.txt"
        assert "cannot be fetched (" in the_error(load_documents([url], policy=EVERYTHING))


def test_https_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving({}) as (place, _):
        assert "cannot be fetched (SSLError" in the_error(load(f"https://{place}/a.txt"))
