"""Source code to its outline, parsed by a child process. Knows no tokens, and needs no parser itself.

A parser made for the texts of a language cannot be trusted with every text: for twenty kilobytes of garbage some
grammars take gigabytes in one call, others minutes, and a fault in one ends the process it is in. So a child parses
(``parsing``), within limits that end it instead of this process.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec

from ingest.structure.grammars import find_grammar
from ingest.structure.outline import Definition, Outline

SOURCE_BYTES_MAX = 2 * 1024 * 1024  # parsed in a second or two
CPU_S_MAX = 20
WALL_S_MAX = 120  # for a machine that has other things to do
MEMORY_BYTES_MAX = 1024 * 1024 * 1024

logger = logging.getLogger(__name__)


def can_parse(language: str) -> bool:
    """Whether a language is known and its grammar is installed; says once in the log where none are."""
    grammar = find_grammar(language)
    return grammar is not None and (_is_installed(grammar.module) or _say_missing())


@cache
def _is_installed(module: str) -> bool:
    return find_spec("tree_sitter") is not None and find_spec(module) is not None


@cache
def _say_missing() -> bool:
    logger.warning(
        "Source code is cut as plain text: tree-sitter or one of its grammars is not installed. "
        "`pip install 'mamba-search[code]'` brings them."
    )
    return False


class CodeParser:
    """Has sources parsed by a child that is started at need and ends with this object. Safe in many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[[subprocess.Popen[bytes]], CodeParser] | None = None

    def parse(self, source: str, language: str, places: Sequence[int]) -> Outline | None:
        """Give the outline of a source in a language that :func:`can_parse`; ``places`` are byte offsets, ascending.

        None, with a line in the log, where the child reaches a limit or fails.
        """
        request = json.dumps({"source": source, "language": language, "places": list(places)}).encode() + b"\n"
        with self._lock:
            reply = self._ask(request)
            if reply is None:
                status = self._stop()
                logger.warning(
                    "Parsing %d characters of %s ended with exit status %s; they are cut as plain text.",
                    len(source),
                    language,
                    status,
                )
                return None
        grades, definitions = json.loads(reply)
        return Outline(grades, [Definition(first, last, tuple(path)) for first, last, path in definitions])

    def _ask(self, request: bytes) -> bytes | None:
        """Send a request and wait for the answer; None where the child cannot start or ends before."""
        try:
            child = self._child or self._start()
        except OSError:
            return None
        assert child.stdin is not None
        assert child.stdout is not None
        timer = threading.Timer(WALL_S_MAX, child.kill)
        timer.start()
        try:
            child.stdin.write(request)
            child.stdin.flush()
            reply = child.stdout.readline()
        except BrokenPipeError:
            return None
        finally:
            timer.cancel()
        return reply if reply.endswith(b"\n") else None

    def _start(self) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "ingest.structure.parsing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process; the child sees its end as the end of the input
        )
        self._end = weakref.finalize(self, _end_child, self._child)
        return self._child

    def _stop(self) -> int | None:
        """End the child; give its exit status, negative for a signal."""
        child, self._child = self._child, None
        if self._end:
            self._end()
        return child.returncode if child else None


def _end_child(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()
    child.wait()
