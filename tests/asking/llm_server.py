"""A small OpenAI-compatible chat server on loopback, which answers as it is told, one request after another."""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """An answer: its status, its pieces of text, and how it ends."""

    pieces: Sequence[str] = ()
    status: int = 200
    body: str = ""  # of one that is no stream
    headers: dict[str, str] = field(default_factory=dict)
    end: str = "stop"  # empty: the connection is closed in the midst of the answer
    raw: str = ""  # sent after the pieces, as it is
    delay_s: float = 0.0  # before each piece


@dataclass
class LlmServer:
    """What it was asked, and where it is."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def llm_server(*replies: Reply) -> Iterator[LlmServer]:
    """Run one; the last reply is given again to all that follow."""
    waiting = list(replies)
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.headers.append({name.lower(): value for name, value in self.headers.items()})
            told.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            self.send_response(reply.status if self.path == "/v1/chat/completions" else 404)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has gone
                self._send(reply)

        def _send(self, reply: Reply) -> None:
            if reply.status != 200:
                self.wfile.write(reply.body.encode())
                return
            self.wfile.write(b": a comment, which keeps the connection alive\n\n")
            for piece in reply.pieces:
                done.wait(reply.delay_s)
                self._event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            self.wfile.write(reply.raw.encode())
            if reply.end:
                self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reply.end}]})
                self._event({"choices": [], "usage": {"total_tokens": 7}})
                self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, event: object) -> None:
            self.wfile.write(f"data: {json.dumps(event)}\r\n\r\n".encode())
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told = LlmServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield told
    finally:
        done.set()
        server.shutdown()
        thread.join()
        server.server_close()
