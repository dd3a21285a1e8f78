"""One child process of ``mamba-search up``: started with a log of its own, watched, stopped. Knows no service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingest.priority import lower_priority
from services.machine.process_tree import end_with_parent

POLL_S = 0.05
_TAIL_LINES = 15
_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Part:
    """What to start, and where it answers then."""

    name: str
    module: str
    target: str  # host and port, as this machine reaches it
    applications: tuple[str | None, ...] = (None,)  # whose health is checked: None, or Ray Serve's
    health_target: str | None = None  # where health is told, if elsewhere
    niceness: int = 0  # how much it leaves the machine to the others, 0 to 19


class Child:
    """A running part. It ends with SIGTERM when this process does, however that happens."""

    def __init__(self, part: Part, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.part = part
        self.log = log
        self._process = process

    @classmethod
    def start(cls, part: Part, environment: Mapping[str, str], log: Path) -> Child:
        """Start the part's module in a session of its own: Ctrl-C in the terminal is for its parent to handle."""
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", part.module],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_before(part),
            )
        return cls(part, log, process)

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return self._process.poll()

    def tail(self) -> list[str]:
        """Read the last lines of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return re.sub(r"\x1b\[\d*m", "", text).splitlines()[-_TAIL_LINES:]  # Ray colours its lines

    async def stop(self, timeout_s: float) -> bool:
        """Ask it to end, and kill it after ``timeout_s``; say whether it ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(timeout_s):
                while self.exit_code is None:  # noqa: ASYNC110 - the kernel tells no asyncio event
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """End it and everything in its session's process group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _before(part: Part) -> Callable[[], None]:
    """Make what the child does before it runs its module."""
    end_it = end_with_parent()

    def in_child() -> None:
        if end_it:
            end_it()
        if part.niceness:
            lower_priority(part.niceness)

    return in_child
