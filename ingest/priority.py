"""How much of a busy machine a process may have: what works in the background leaves it to what somebody waits for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_SESSION = Path("/proc/self/autogroup")


def lower_priority(by: int = 0) -> None:
    """Lower the priority of this process by ``by``, and that of its session to the same; called before it has threads.

    Many Linux kernels share the cores out among sessions first (``sched_autogroup_enabled``), whatever the niceness of
    the processes in them: a process in a session of its own has an equal share until its session says otherwise. With
    0, a new session gets the niceness that its process has inherited.
    """
    niceness = os.nice(by)
    with suppress(OSError):  # another kernel
        _SESSION.write_text(str(niceness), encoding="ascii")
