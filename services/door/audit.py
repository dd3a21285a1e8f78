"""The audit log: who did what to which, and what came of it, a line of JSON each. Never texts, queries or keys.

Lines are written by a thread of their own: a slow disk holds no call up, and a full one stops nothing. What could not
be written is counted, and said in the process's log.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import queue
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

LINES_WAITING_MAX = 10_000
_COMPLAINT_PERIOD_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One call, or one document of a stream."""

    who: str
    method: str
    tenant: str
    thing: str  # id of the document or the job; empty where there is none
    outcome: str
    code: str  # of gRPC
    duration_ms: float
    request_id: str


class AuditLog:
    """Takes entries and never fails. Without a folder and standard error it keeps nothing."""

    def __init__(
        self,
        process: str,
        where: str,
        *,
        bytes_max: int = 100 * 1024 * 1024,
        files: int = 5,
        stderr: TextIO | None = None,
    ) -> None:
        """Open it; ``where`` is a folder, "-" for standard error, or empty."""
        self.lost = 0  # lines that could not be written
        self._complained_at = -_COMPLAINT_PERIOD_S
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_WAITING_MAX)
        self._thread: threading.Thread | None = None
        if where:
            target = _Stream(stderr or sys.stderr) if where == "-" else _File(Path(where), process, bytes_max, files)
            self._thread = threading.Thread(target=self._write_all, args=(target,), name="audit", daemon=True)
            self._thread.start()

    @property
    def is_kept(self) -> bool:
        """Whether entries go anywhere."""
        return self._thread is not None

    def note(self, entry: AuditEntry) -> None:
        """Have an entry written."""
        if self._thread is None:
            return
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **asdict(entry)})
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._lose("they come faster than they can be written")

    def close(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join()
            self._thread = None

    def _write_all(self, target: _Stream | _File) -> None:
        while (line := self._lines.get()) is not None:
            try:
                target.write(line)
            except (OSError, ValueError) as error:
                self._lose(error.strerror or type(error).__name__ if isinstance(error, OSError) else "closed")
        target.close()

    def _lose(self, reason: str) -> None:
        self.lost += 1
        if time.monotonic() - self._complained_at >= _COMPLAINT_PERIOD_S:
            self._complained_at = time.monotonic()
            logger.error("%d lines of the audit log were lost so far: %s", self.lost, reason)


class _Stream:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        pass  # standard error is the process's


class _File:
    """A file that is put aside at a size: audit-search.jsonl, the one before audit-search.jsonl.1, and so on."""

    def __init__(self, folder: Path, process: str, bytes_max: int, files: int) -> None:
        self._path = folder / f"audit-{process}.jsonl"
        self._bytes_max, self._files = bytes_max, files
        self._file: int | None = None
        self._torn = False

    def write(self, line: str) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # A disk that was full may have taken half of the line before; its rest must not run into this one.
        data = (("\n" if self._torn else "") + line + "\n").encode()
        written = os.write(self._file, data)
        self._torn = written < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if os.fstat(self._file).st_size >= self._bytes_max:
            self.close()
            self._put_aside()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _put_aside(self) -> None:
        for number in range(self._files - 1, 0, -1):
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if newer.exists():
                newer.replace(self._path.with_name(f"{self._path.name}.{number}"))
        if self._files == 1:
            self._path.unlink()
