"""What a bulk load reads, in parts: row groups of Parquet, stretches of JSON lines. Each can be read on its own.

A part is what is finished or not finished when a load is interrupted, and what one process reads.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

from encoder.errors import InvalidInput
from ingest.documents import Document
from ingest.files import FoundFile, reason
from ingest.json_lines import LINE_BYTES_MAX, read_line, skip_line, too_long
from ingest.loading.kinds import Kind
from ingest.loading.parquet_rows import read_parquet, row_group_bytes
from ingest.loading.parsed import Unreadable
from ingest.receipts import LoadError
from ingest.sources.finding import find_sources
from ingest.sources.policy import BUCKET_SCHEMES, EVERYTHING, split_url

PART_BYTES = 64 * 1024 * 1024
PARTS_MAX = 100_000
REOPEN_DELAYS_S = (1.0, 5.0)
_ID_NEEDED = "has no document_id; a bulk load divides files, and lines have no numbers in it: give each line an id."


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of one file."""

    file: FoundFile
    first: int  # of Parquet a row group, of JSON lines a byte: the lines that begin from there on
    last: int  # exclusive

    @property
    def name(self) -> str:
        """Say which it is; the same part has the same name as long as its file has its size."""
        return f"{self.file.source} ({self.file.size} bytes) {self.first}-{self.last}"


def plan_parts(sources: Sequence[str], part_bytes: int = PART_BYTES) -> list[Part]:
    """Divide the files that paths, folders, patterns and buckets' URLs mean into parts of about ``part_bytes``.

    :class:`InvalidInput` names the first source that cannot be read, or is neither Parquet nor JSON lines.
    """
    parts: list[Part] = []
    for source in sources:
        if "://" in source and split_url(source)[0] not in BUCKET_SCHEMES | {"file"}:
            raise InvalidInput(
                "sources", f"{source} is not of a bucket or a folder; copy it where all machines read it."
            )
        for found in find_sources(source, EVERYTHING, Counter()):
            if isinstance(found, LoadError):
                raise InvalidInput("sources", str(found.error))
            parts += _divide(found, part_bytes)
            if len(parts) > PARTS_MAX:
                raise InvalidInput("sources", f"sources have over {PARTS_MAX} parts; load them in several collections.")
    return parts


def read_part(part: Part) -> Iterator[Document | LoadError]:
    """Read a part's rows, one at a time; a bad row is one :class:`LoadError`.

    Where the file itself cannot be read it is opened again, a few times; then an error of this source ends the rows.
    """
    given = 0
    for delay_s in (*REOPEN_DELAYS_S, None):
        for number, item in enumerate(_read_once(part)):
            broken = isinstance(item, LoadError) and item.source == part.file.source
            if broken and delay_s is not None:
                time.sleep(delay_s)
                break
            if broken or number >= given:
                given += 1
                yield item
        else:
            return


def _read_once(part: Part) -> Iterator[Document | LoadError]:
    source = part.file.source
    try:
        with closing(part.file.open()) as stream:
            if part.file.kind is Kind.PARQUET:
                groups = range(part.first, part.last)
                yield from read_parquet(stream, source, name=part.file.name, row_groups=groups)
            else:
                yield from _read_lines(stream, part)
    except OSError as error:
        yield LoadError(source, InvalidInput("sources", f"{source} cannot be read ({reason(error)})."))


def _divide(file: FoundFile, part_bytes: int) -> list[Part]:
    try:
        if file.kind is Kind.JSON_LINES:
            return [Part(file, at, min(at + part_bytes, file.size)) for at in range(0, file.size, part_bytes)]
        if file.kind is Kind.PARQUET:
            with file.open() as stream:
                sizes = row_group_bytes(stream, file.source)
            return [Part(file, first, last) for first, last in _runs(sizes, part_bytes)]
    except OSError as error:
        raise InvalidInput("sources", f"{file.source} cannot be read ({reason(error)}).") from None
    except Unreadable as error:
        raise InvalidInput("sources", f"{file.source} {error}") from None
    raise InvalidInput("sources", f"{file.source} is {file.kind.value}; a bulk load reads Parquet and JSON lines.")


def _runs(sizes: Sequence[int], bytes_max: int) -> Iterator[tuple[int, int]]:
    """Join neighbours up to a size; one that is larger stays alone."""
    first, total = 0, 0
    for number, size in enumerate(sizes):
        if number > first and total + size > bytes_max:
            yield first, number
            first, total = number, 0
        total += size
    if first < len(sizes):
        yield first, len(sizes)


def _read_lines(stream: BinaryIO, part: Part) -> Iterator[Document | LoadError]:
    """Read the lines that begin in a stretch; the last may end beyond it."""
    at = part.first
    if at:
        stream.seek(at - 1)  # where the byte before ends a line, one begins here
        at += skip_line(stream) - 1
    while at < part.last and (line := stream.readline(LINE_BYTES_MAX + 1)):
        place = f"{part.file.source} at byte {at}"
        at += len(line)
        if len(line) > LINE_BYTES_MAX:
            at += skip_line(stream)
            yield too_long(place)
        elif line.strip():
            yield _read(line, place)


def _read(line: bytes, place: str) -> Document | LoadError:
    try:
        document = read_line(line, place, "")
    except InvalidInput as error:
        return LoadError(place, error)
    if not document.document_id:
        return LoadError(place, InvalidInput("document_id", f"{place} {_ID_NEEDED}"))
    return document
