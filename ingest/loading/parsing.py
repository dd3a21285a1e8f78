"""Parsing in a child that is ended when it takes too long. Knows how to keep and ask it, and no format."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import BinaryIO

from ingest.documents import TEXT_BYTES_MAX
from ingest.loading.parsed import Parsed, Unreadable

TIME_S = 60
MEMORY_BYTES_MAX = 2 * 1024 * 1024 * 1024  # of addresses, those of Python and the libraries included
FILES_MAX = 1000  # of one child: what leaks is given back with it
# Quotes and breaks are two characters in JSON, and few texts hold many characters that are more.
ANSWER_BYTES_MAX = 2 * TEXT_BYTES_MAX
_NO_ANSWER = "ended the process that reads such files ({}); it is broken, or made to do harm."


class ParsingProcess:
    """A child for many files, one at a time; started at the first of them, and anew where it ended."""

    def __init__(self, time_s: int = TIME_S, memory_bytes: int = MEMORY_BYTES_MAX) -> None:
        self._time_s = time_s
        self._memory_bytes = memory_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._files = 0  # of this child

    def __enter__(self) -> ParsingProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def parse(self, kind: str, stream: BinaryIO) -> Parsed:
        """Parse a file of a kind that the child knows; :class:`Unreadable` says why it gives no text."""
        if self._child and (self._files == FILES_MAX or self._child.poll() is not None):
            self.close()
        try:
            with _as_file(stream) as file:
                self._ask(kind, file)
            return self._read_answer()
        except TimeoutError:
            self.close()
            raise Unreadable(f"could not be read within {self._time_s} s; split it, or save it anew.") from None
        except (EOFError, ConnectionError):
            assert self._child
            status = self._child.wait()
            self.close()
            raise Unreadable(_NO_ANSWER.format(f"exit status {status}")) from None

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._connection:
            self._connection.close()
        if self._child:
            self._child.kill()
            self._child.wait()
        self._child = self._connection = None
        self._files = 0

    def _ask(self, kind: str, file: int) -> None:
        if self._connection is None:
            self._start()
        assert self._connection
        self._files += 1
        # The child's own alarm comes later than the end of our patience.
        request = {"kind": kind, "time_s": self._time_s + 10, "text_bytes_max": TEXT_BYTES_MAX}
        socket.send_fds(self._connection, [json.dumps(request).encode()], [file])

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: a module in the folder where the command was started is none of ours.
            command = [sys.executable, "-P", "-m", "ingest.loading.child"]
            self._child = subprocess.Popen(  # noqa: S603 - ourselves
                [*command, str(theirs.fileno()), str(self._memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
            )
        self._connection = ours

    def _read_answer(self) -> Parsed:
        deadline = time.monotonic() + self._time_s
        size = int.from_bytes(self._receive(8, deadline), "little")
        if size > ANSWER_BYTES_MAX:
            self.close()
            raise Unreadable(f"has a text of {size} bytes as JSON; the limit is {ANSWER_BYTES_MAX}. Split it.")
        answer = json.loads(self._receive(size, deadline))
        if "error" in answer:
            if answer["full"]:
                self.close()
            raise Unreadable(answer["error"])
        times = {name: datetime.fromisoformat(value) for name, value in answer["times"].items()}
        return Parsed(answer["text"], answer["title"], {**answer["metadata"], **times})

    def _receive(self, size: int, deadline: float) -> bytes:
        assert self._connection
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._connection.settimeout(max(deadline - time.monotonic(), 1e-3))
            count = self._connection.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
        return bytes(data)


@contextlib.contextmanager
def _as_file(stream: BinaryIO) -> Iterator[int]:
    """Give an open file of the operating system, from its beginning, with what the stream holds."""
    try:
        descriptor = stream.fileno()
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:  # in memory, or from a network
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(stream, copy)
            copy.flush()
            copy.seek(0)
            yield copy.fileno()
    else:
        yield descriptor
