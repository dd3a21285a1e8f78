"""Mailboxes (mbox) cut into messages, one at a time in a temporary file. Knows nothing of what is in a message."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ingest.loading.kinds import CONTAINER_BYTES_MAX
from ingest.loading.parsed import Unreadable

LINE_BYTES = 1 << 16  # a longer one is taken in parts
_SEPARATOR = b"From "
_QUOTED = re.compile(rb">+From ")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a mailbox. The file holds until the next one is asked for."""

    number: int  # from 1
    file: BinaryIO
    size: int  # bytes; of one over the limit, the file holds nothing


def read_messages(stream: BinaryIO) -> Iterator[Message]:
    """Cut at lines that begin with ``From`` after an empty one; :class:`Unreadable` where the first line is none."""
    line = stream.readline(LINE_BYTES)
    if not line.startswith(_SEPARATOR):
        raise Unreadable("is not a mailbox: its first line does not begin with 'From '.")
    number = 0
    while line:
        number += 1
        with tempfile.TemporaryFile() as file:
            size, line = _copy_message(stream, file)
            yield Message(number, file, size)


def _copy_message(stream: BinaryIO, file: BinaryIO) -> tuple[int, bytes]:
    """Copy to the next message; give the size, and the line that begins it, which is empty at the end."""
    size, begins, after_empty = 0, True, False
    while line := stream.readline(LINE_BYTES):
        if begins and after_empty and line.startswith(_SEPARATOR):
            break
        after_empty = begins and line in (b"\n", b"\r\n")
        if begins and _QUOTED.match(line):
            line = line[1:]
        begins = line.endswith(b"\n")
        size += len(line)
        if size <= CONTAINER_BYTES_MAX:
            file.write(line)
        elif file.tell():
            file.seek(0)
            file.truncate()
    file.flush()
    file.seek(0)
    return size, line
