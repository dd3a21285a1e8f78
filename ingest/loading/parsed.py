"""What a parser makes of a file, and how it says that it can make nothing. Knows no format, and no document."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text of a file and what the file says of itself."""

    text: str
    title: str = ""  # empty where it names none
    metadata: dict[str, str | int | datetime] = field(default_factory=dict)


class Unreadable(Exception):
    """Why a file gives no text: the end of a sentence that begins with the file's name."""


def in_utc(moment: datetime) -> datetime:
    """Move a time to UTC; one without a zone is taken for UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def whole_characters(text: str) -> str:
    """Join halves of surrogate pairs, replace those that are alone by U+FFFD, leave out NUL."""
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\0", "")
