"""Which version of a file there is: how files that are followed are known to have changed, without reading them."""

from __future__ import annotations

from pathlib import Path


def file_mark(path: Path) -> tuple[int, int, int] | None:
    """Give inode, time and size of a file, which change with it; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
