"""When to look at a folder again: as soon as the operating system tells of a change, through watchfiles."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from pathlib import Path

from encoder.errors import MambaSearchError

logger = logging.getLogger(__name__)

# A folder is looked at this often without being told: not every file system tells, and a queue may overflow.
UNTOLD_S = 60.0
_ALIVE_MS = 1000  # between two looks whether it is still the same folder
_AWAY_S = 1.0


def check_installed() -> None:
    """Raise :class:`MambaSearchError` where watchfiles is not there."""
    try:
        import watchfiles  # noqa: F401
    except ModuleNotFoundError as error:
        raise MambaSearchError(
            f"The package {error.name} is missing, which --watch needs; install it: pip install 'mamba-search[watch]'."
        ) from error


async def tell_of_changes(folder: Path, changed: asyncio.Event) -> None:
    """Set ``changed`` whenever a file in a folder may have changed, until cancelled.

    Too often does no harm, so that the folder itself may go and come back: it is watched anew then. Where the operating
    system does not let it be watched, the event is not set, which is logged.
    """
    from watchfiles import Change, awatch

    def concerns_us(_: Change, path: str) -> bool:
        return ".git" not in Path(path).parts[len(folder.parts) :]

    while True:
        pause_s = _AWAY_S
        try:
            if identity := identity_of(folder):
                watching = awatch(folder, watch_filter=concerns_us, rust_timeout=_ALIVE_MS, yield_on_timeout=True)
                async with aclosing(watching) as events:
                    is_first = True  # something may have come before it was watched
                    async for changes in events:
                        if changes or is_first:
                            changed.set()
                        is_first = False
                        # Who moves away is not watched any more, also where it comes back at once.
                        if identity_of(folder) != identity or str(folder) in {path for _, path in changes}:
                            break
                changed.set()
        except FileNotFoundError:  # a folder in it vanished at the start
            changed.set()
        except (OSError, RuntimeError) as error:
            logger.warning("%s is looked at every %.0f s, since it cannot be watched: %s", folder, UNTOLD_S, error)
            pause_s = UNTOLD_S
        await asyncio.sleep(pause_s)


def identity_of(folder: Path) -> str:
    """Name the folder itself, whatever its path leads to later; empty where there is none."""
    try:
        status = folder.stat()
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}" if folder.is_dir() else ""
