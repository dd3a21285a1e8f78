"""The project's exception tree. Each message is one sentence: the field, the value, the limit, what to do.

``services/status.py`` maps each class to a gRPC status and to an exit code of the command line.
"""

from __future__ import annotations


class MambaSearchError(Exception):
    """Anything a user can act on. Its text is shown as it is, without a traceback."""


class InvalidInput(MambaSearchError):
    """A value from outside is not acceptable; ``field`` names it as the caller does."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)  # all arguments, so that the error survives pickling between processes
        self.field = field

    def __str__(self) -> str:
        return str(self.args[1])


class NotFound(MambaSearchError):
    """The thing asked for does not exist."""


class Unauthenticated(MambaSearchError):
    """Nobody is known by what the caller showed: no key or token, or one that is not good (any more)."""


class PermissionDenied(MambaSearchError):
    """The caller is known, and may not do this."""


class FingerprintMismatch(MambaSearchError):
    """An index was made by another model, tokenizer or chunker than the one at hand."""


class CheckpointError(MambaSearchError):
    """A model folder is incomplete or corrupt; the message names the file and the key."""


class Unavailable(MambaSearchError):
    """A service cannot be reached, or does not answer."""


class EncoderUnavailable(Unavailable):
    """The encoder service cannot be reached, or does not answer."""


class IndexUnavailable(Unavailable):
    """The index cannot be reached, or does not answer."""


class IndexMoved(IndexUnavailable):
    """The name of the index leads to another one now: this one takes no more records, and has to be opened anew."""


class JournalUnavailable(Unavailable):
    """The journal of ingestion cannot be reached, or does not answer."""


class TimedOut(MambaSearchError):
    """No answer within the deadline."""


class Overloaded(MambaSearchError):
    """A queue is full; try again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class StorageFull(MambaSearchError):
    """The disk (or the index's quota) is full: nothing was written."""


class InUse(MambaSearchError):
    """A data directory or a port is held by another process."""
