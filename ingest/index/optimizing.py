"""Optimizing an engine in a process of its own: ``python -m ingest.index.optimizing FOLDER``.

The engine builds its graphs in one call that holds Python's interpreter lock for minutes: in the process that answers
searches it would silence all of them. So it works on a copy, in a child, at low priority.
"""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
import sys
from pathlib import Path

from encoder.errors import IndexUnavailable
from ingest.index.data_directory import sync_tree
from ingest.index.engine import Engine
from ingest.priority import lower_priority

NICENESS = 10
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


async def copy_folder(folder: Path, draft: Path) -> None:
    """Copy a folder that does not change meanwhile; cancelling waits, since a thread cannot be ended."""
    copying = asyncio.create_task(asyncio.to_thread(shutil.copytree, folder, draft))
    try:
        await asyncio.shield(copying)
    finally:
        await asyncio.wait([copying])


async def optimize_in_child(folder: Path) -> None:
    """Optimize the engine in a folder that nobody has open; cancelling ends the child.

    :class:`IndexUnavailable` where the child fails.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ingest.index.optimizing",
        str(folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
    )
    try:
        _, messages = await child.communicate()
    except BaseException:
        child.kill()
        await child.wait()
        raise
    if child.returncode:
        reason = messages.decode(errors="replace").strip()[-300:]
        raise IndexUnavailable(f"Optimizing {folder} failed with exit status {child.returncode}: {reason}")


def main(folder: Path) -> None:
    """Optimize, flush, end; end as well when the parent does, even if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    lower_priority(NICENESS)
    engine = Engine.load(folder)
    engine.optimize()
    engine.close()
    sync_tree(folder)  # the copy that it was is not on the disk yet


if __name__ == "__main__":
    main(Path(sys.argv[1]))
