"""What the embedded engine raises, as errors of ours. Opens nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoder.errors import IndexUnavailable, StorageFull


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Raise :class:`IndexUnavailable` or :class:`StorageFull` for what the engine on a folder raises."""
    try:
        yield
    except IndexUnavailable:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if "No space left" in str(error):
            raise StorageFull(f"The disk of {folder} is full; free some space and try again.") from error
        raise IndexUnavailable(
            f"The engine failed on {folder} ({_first_line(error)}); where this repeats, the folder is damaged: restore "
            "it from a backup, or delete the data directory and ingest again."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
