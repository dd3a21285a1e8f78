"""Processes that cut documents, started at need: a group of documents is shared out among them."""

from __future__ import annotations

import asyncio
import heapq
import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from encoder.errors import InvalidInput, Unavailable
from ingest.chunking import Chunker
from ingest.cutting.cutter import CutDocument, CutRequest
from ingest.cutting.messages import PackedDocument, receive, send, unpack

logger = logging.getLogger(__name__)

_Reply = list[PackedDocument | tuple[str, str]]


class CuttingProcesses:
    """Cuts in processes of its own. :meth:`close` ends them, as does the end of this process."""

    def __init__(self, model: Path, chunker: Chunker, count: int) -> None:
        """Have ``count`` processes, at least one, cut as ``chunker`` does, whose tokenizer is that of ``model``."""
        arguments = [str(model), str(chunker.tokens_max), str(chunker.overlap_tokens)]
        self._processes = [_Process(arguments) for _ in range(count)]

    async def cut(self, requests: Sequence[CutRequest]) -> list[CutDocument | InvalidInput]:
        """Cut documents, about as much text in each process."""
        shares = _share(requests, len(self._processes))
        work = [
            asyncio.to_thread(process.cut, [requests[place] for place in share])
            for process, share in zip(self._processes, shares, strict=True)
            if share
        ]
        found: list[CutDocument | InvalidInput | None] = [None] * len(requests)
        # All are waited for, also where one fails: none may be asked while it answers someone who has left.
        for share, cut in zip(filter(None, shares), await asyncio.gather(*work, return_exceptions=True), strict=True):
            if isinstance(cut, BaseException):
                raise cut
            for place, each in zip(share, cut, strict=True):
                found[place] = each
        return cast("list[CutDocument | InvalidInput]", found)

    async def close(self) -> None:
        """End the processes, once they have done what they are at."""
        await asyncio.gather(*(asyncio.to_thread(process.stop) for process in self._processes))


class _Process:
    """One of them; one request at a time."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = [sys.executable, "-P", "-m", "ingest.cutting.child", *arguments]
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def cut(self, requests: Sequence[CutRequest]) -> list[CutDocument | InvalidInput]:
        """Cut documents. Where the process ends over them, each alone: the one at fault is refused."""
        reply = self._ask(requests)
        if reply is None and len(requests) > 1:
            return [found for request in requests for found in self.cut([request])]
        if reply is None:  # perhaps by no fault of the document's
            reply = self._ask(requests)
        if reply is None:
            message = (
                f"text of {requests[0].document.document_id} ended the process that was to cut it; split the document."
            )
            return [InvalidInput("text", message)]
        return [
            unpack(each, request.document.text) if isinstance(each, PackedDocument) else InvalidInput(*each)
            for each, request in zip(reply, requests, strict=True)
        ]

    def stop(self) -> None:
        """End the process; a later request starts another."""
        with self._lock:
            self._stop()

    def _ask(self, requests: Sequence[CutRequest]) -> _Reply | None:
        with self._lock:
            child = self._child or self._start()
            try:
                send(_pipe(child.stdin), list(requests))
                return cast("_Reply", receive(_pipe(child.stdout)))
            except (EOFError, BrokenPipeError):
                logger.warning("a process that cuts documents ended with exit status %s", self._stop())
                return None
            except BaseException:
                self._stop()  # what it answers yet would be taken for an answer about other documents
                raise

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the process; :class:`Unavailable` where it does not come up, which is no document's fault."""
        # Ctrl-C is for this process; the child sees its end as the end of the input.
        child = self._child = subprocess.Popen(  # noqa: S603 - this program
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            receive(_pipe(child.stdout))
        except EOFError:
            raise Unavailable(
                f"A process that cuts documents ended with exit status {self._stop()} while it started; the log says "
                "why. Is the model's folder still there?"
            ) from None
        return child

    def _stop(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with suppress(BrokenPipeError):
                _pipe(pipe).close()
        return child.wait()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _share(requests: Sequence[CutRequest], count: int) -> list[list[int]]:
    """Give each of ``count`` processes the places of its documents: the longest first, to whoever has least."""
    shares: list[list[int]] = [[] for _ in range(count)]
    least = [(0, number) for number in range(count)]
    for place in sorted(range(len(requests)), key=lambda place: -len(requests[place].document.text)):
        chars, number = heapq.heappop(least)
        shares[number].append(place)
        heapq.heappush(least, (chars + len(requests[place].document.text), number))
    return shares
