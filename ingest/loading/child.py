"""The process that parses files of strangers: ``python -m ingest.loading.child SOCKET MEMORY_BYTES``.

The socket is a file descriptor. The process has little memory and little time for each file, and whatever it does or
becomes, the one that asks goes on. Knows the files that it is handed, open, and no folder.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import socket
import sys
from datetime import datetime
from typing import BinaryIO, Protocol, cast

from ingest.loading.parsed import Parsed, Unreadable

REQUEST_BYTES_MAX = 4096
EXTRA = "documents"
MODULES = {
    "html": "ingest.loading.html_text",
    "pdf": "ingest.loading.pdf_text",
    "docx": "ingest.loading.docx_text",
    "mail": "ingest.loading.mail_text",
}
_REASON_CHARS_MAX = 300


class Parser(Protocol):
    """What each module of ``MODULES`` has."""

    def parse(self, stream: BinaryIO) -> Parsed:
        """Read a file from its beginning; :class:`Unreadable` says why it gives no text."""


def serve(connection: socket.socket) -> None:
    """Answer one request after the other, until the other side is gone.

    A request is a JSON object with the kind of a file and its limits, and the file itself, open. An answer is a JSON
    object, its length before it.
    """
    while True:
        data, files, _, _ = socket.recv_fds(connection, REQUEST_BYTES_MAX, 1)
        if not data:
            return
        request = json.loads(data)
        # Should the other side die, nobody ends this process but itself. Untouched, this signal ends it.
        signal.alarm(request["time_s"])
        with os.fdopen(files[0], "rb") as stream:
            answer = _answer(request["kind"], stream, request["text_bytes_max"])
        signal.alarm(0)
        connection.sendall(len(answer).to_bytes(8, "little") + answer)


def _answer(kind: str, stream: BinaryIO, text_bytes_max: int) -> bytes:
    try:
        parsed = cast("Parser", importlib.import_module(MODULES[kind])).parse(stream)
        size = len(parsed.text.encode())
        if size > text_bytes_max:
            return _failure(f"has {size} bytes of text; the limit is {text_bytes_max}. Split the document.")
        times = {name: value.isoformat() for name, value in parsed.metadata.items() if isinstance(value, datetime)}
        others = {name: value for name, value in parsed.metadata.items() if not isinstance(value, datetime)}
        answer = {"text": parsed.text, "title": parsed.title, "metadata": others, "times": times}
        return json.dumps(answer, ensure_ascii=False).encode()
    except Unreadable as error:
        return _failure(str(error))
    except ImportError as error:
        message = f"needs {error.name or error} to be read; install it: pip install 'mamba-search[{EXTRA}]'."
        return _failure(message)
    except MemoryError:
        memory_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
        return _failure(f"needs more than {memory_bytes} bytes of memory to be read; split it.", full=True)
    except Exception as error:  # noqa: BLE001 - a broken file makes a parser raise anything
        reason = f"{type(error).__name__}: {error}"[:_REASON_CHARS_MAX]
        return _failure(f"is broken ({reason}); save it anew.")


def _failure(message: str, *, full: bool = False) -> bytes:
    """Say why there is no text, and whether this process had better serve no other file."""
    return json.dumps({"error": message, "full": full}).encode()


def main(descriptor: int, memory_bytes: int) -> None:
    """Give up what parsing does not need, then serve."""
    for limit, most in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(limit, (most, most))
    logging.disable()  # libraries tell at length what is wrong with a file
    with socket.socket(fileno=descriptor) as connection:
        serve(connection)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
