"""What a file found, or no longer found, in a folder that is followed means. Knows no folder: it is a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# A file that changes is left alone for so long after its last change: it may still be written.
QUIET_S = 0.5
# But one that never stops changing, a log, is read every so often.
PATIENCE_S = 10.0


class Action(Enum):
    """What is to be done about a file."""

    NOTHING = "nothing"
    WAIT = "wait"  # it has just changed
    READ = "read"
    FORGET = "forget"  # its documents are to go


@dataclass(frozen=True, slots=True)
class KnownFile:
    """What is known of a file. A signature says in what state of the file: size, times, inode."""

    read: str = ""  # the signature of what is in the index; empty where nothing is, or where it has to be read again
    seen: str = ""  # the one at the last look
    seen_since: float = 0.0  # seconds of the run: when it was first seen so
    changed_since: float = 0.0  # when it was first seen to differ from what was read
    missed: bool = False  # it was gone before this run began


def next_look(known: KnownFile | None, found: str, now: float) -> KnownFile:
    """Note that a file was found with a signature, at ``now``."""
    if known is None:
        return KnownFile(seen=found, seen_since=now, changed_since=now)
    seen_since = known.seen_since if found == known.seen else now
    differed = known.seen != known.read
    return KnownFile(known.read, found, seen_since, known.changed_since if differed else now)


def decide(known: KnownFile, now: float, *, found: bool, hidden: bool = False, prune: bool = False) -> Action:
    """Say what is to be done about a file at ``now``, after :func:`next_look` where it was found.

    ``hidden``: it may be there all the same, since what holds it could not be looked at. ``prune``: also files that
    were gone before this run began are gone.
    """
    if not found:
        return Action.NOTHING if hidden or (known.missed and not prune) else Action.FORGET
    if known.read == known.seen:
        return Action.NOTHING
    is_quiet = now - known.seen_since >= QUIET_S or now - known.changed_since >= PATIENCE_S
    return Action.READ if is_quiet else Action.WAIT
