"""A web server of this machine: files by path, redirects, and answers that go wrong; and buckets as S3 answers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes = b""
    content_type: str = "text/html"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # that is said; None: the body's


@contextmanager
def serving(answers: dict[str, Answer]) -> Iterator[tuple[str, list[str]]]:
    """Serve until the block ends; gives host and port, and the list of requests as it grows."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            answer = answers.get(self.path, Answer(status=404))
            self.send_response(answer.status)
            length = len(answer.body) if answer.length is None else answer.length
            for name, value in {
                "Content-Type": answer.content_type,
                "Content-Length": str(length),
                **answer.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    with _running(Handler) as place:
        yield place, requests


@contextmanager
def serving_bucket(name: str, objects: dict[str, bytes]) -> Iterator[str]:
    """Serve one bucket as S3 does, by path; gives host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
            if bucket != name or (key and key not in objects):
                self._answer(404, b"")
            elif key:
                self._answer(200, objects[key])
            else:
                self._answer(200, self._listing({n: v[0] for n, v in parse_qs(parts.query).items()}))

        def _listing(self, query: dict[str, str]) -> bytes:
            prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
            keys, folders = [], set()
            for key in objects:
                rest = key.removeprefix(prefix)
                if not key.startswith(prefix):
                    continue
                if delimiter and delimiter in rest:
                    folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                else:
                    keys.append(key)
            contents = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(objects[key])}</Size>"
                "<LastModified>2026-03-01T12:00:00.000Z</LastModified></Contents>"
                for key in keys
            )
            common = "".join(
                f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in sorted(folders)
            )
            counts = f"<KeyCount>{len(keys) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
            return f"<ListBucketResult><Name>{name}</Name>{counts}{contents}{common}</ListBucketResult>".encode()

        def _answer(self, status: int, body: bytes) -> None:
            asked = self.headers.get("Range", "")
            if status == 200 and asked:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                whole, status = len(body), 206
                body = body[int(first) : int(last) + 1]
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{whole}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Sun, 01 Mar 2026 12:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with _running(Handler) as place:
        yield place


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
