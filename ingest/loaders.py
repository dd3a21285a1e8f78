"""Sources into documents, of all kinds, one at a time and never all in memory. Knows no index.

What cannot be read becomes a :class:`LoadError`, and the rest goes on.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from encoder.errors import InvalidInput, MambaSearchError
from ingest.documents import (
    TEXT_BYTES_MAX,
    TITLE_CHARS_MAX,
    Document,
    MetadataValue,
    check_metadata,
)
from ingest.files import FoundFile, reason
from ingest.json_lines import looks_like_json_lines, read_json_lines
from ingest.loading.csv_rows import read_csv
from ingest.loading.kinds import BYTES_MAX, CONTAINER_BYTES_MAX, Kind
from ingest.loading.mailbox import read_messages
from ingest.loading.parquet_rows import read_parquet
from ingest.loading.parsed import Parsed, Unreadable
from ingest.loading.parsing import ParsingProcess
from ingest.loading.plain_text import decode_text, read_markdown
from ingest.loading.seen import SeenDocuments
from ingest.receipts import LoadError
from ingest.sources.finding import STDIN, find_sources
from ingest.sources.policy import EVERYTHING, SourcePolicy

logger = logging.getLogger(__name__)

# Kinds that the child parses, by its names for them.
PARSED = {Kind.HTML: "html", Kind.PDF: "pdf", Kind.DOCX: "docx", Kind.MAIL: "mail"}


def load_documents(
    paths: Sequence[Path | str],
    stdin: BinaryIO | None = None,
    *,
    policy: SourcePolicy = EVERYTHING,
    skipped: Counter[str] | None = None,
    wanted: Callable[[str], bool] | None = None,
) -> Iterator[Document | LoadError]:
    """Read sources in the order given: files, folders, patterns, git repositories, URLs; ``-`` is ``stdin``.

    A folder gives its files whose endings are known and those of its folders, in the order of their names, hidden ones
    left out, links to folders not followed, links that lead out of it refused. A file named by itself is read as plain
    text where its ending says nothing. A document's id is its path relative to the folder given (the name alone for a
    file); rows bring their own. Of two documents with one id, the second is an error: it would replace the first. What
    the policy does not allow is an error, too. Files of repositories that are no text are counted in ``skipped``. With
    ``wanted`` only those files are read of which it says so, by where they are.
    """
    counted: Counter[str] = Counter() if skipped is None else skipped
    with closing(SeenDocuments()) as seen, ParsingProcess() as parser:
        for path in paths:
            for item in _load_source(str(path), stdin, policy, counted, wanted, parser):
                if isinstance(item, LoadError):
                    yield item
                    continue
                try:
                    seen.add(item)
                except InvalidInput as error:
                    yield LoadError(item.place, error, item.document_id)
                else:
                    yield item


def _load_source(
    path: str,
    stdin: BinaryIO | None,
    policy: SourcePolicy,
    skipped: Counter[str],
    wanted: Callable[[str], bool] | None,
    parser: ParsingProcess,
) -> Iterator[Document | LoadError]:
    if path == STDIN:
        if stdin is None:
            raise InvalidInput("paths", "- stands for standard input, of which there is none here.")
        yield from _load_stdin(stdin)
        return
    for found in find_sources(path, policy, skipped):
        if isinstance(found, LoadError):
            yield found
        elif wanted is None or wanted(found.source):
            yield from load_file(found, parser)


def _load_stdin(stdin: BinaryIO) -> Iterator[Document | LoadError]:
    """Read JSON lines where the first line is one; else all of it is one plain text."""
    first = stdin.readline(TEXT_BYTES_MAX + 1)
    if looks_like_json_lines(first):
        yield from read_json_lines(stdin, "stdin", first_line=first)
        return
    data = first + stdin.read(TEXT_BYTES_MAX + 1 - len(first))
    try:
        yield Document(document_id="stdin", text=_decode(data), source="stdin")
    except Unreadable as error:
        yield _refused("stdin", error)


def load_file(file: FoundFile, parser: ParsingProcess) -> Iterator[Document | LoadError]:
    """Read a file that was found; what cannot be read of it is a :class:`LoadError`."""
    try:
        _check_size(file)
        with file.open() as stream:
            yield from _read(file, stream, parser)
    except Unreadable as error:
        yield _refused(file.source, error)
    except OSError as error:
        message = f"{file.source} cannot be read ({reason(error)})."
        yield LoadError(file.source, InvalidInput("paths", message))
    except MambaSearchError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a file does to who reads it, the rest goes on
        yield _unforeseen(file, error)


def _unforeseen(file: FoundFile, error: Exception) -> LoadError:
    """Refuse a file that nobody foresaw; the log holds the lines of code, not the message, which may quote the file."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s while reading a file:\n%s", type(error).__qualname__, where)
    message = f"{file.source} cannot be read, for a reason that nobody foresaw ({type(error).__name__}); report it."
    return LoadError(file.source, InvalidInput("text", message))


def _check_size(file: FoundFile) -> None:
    limit = BYTES_MAX.get(file.kind)
    if not file.size:
        raise Unreadable("is empty; it holds no document.")
    if limit is not None and file.size > limit:
        raise Unreadable(f"has {file.size} bytes; the limit of {file.kind.value} is {limit}. Split it.")


def _read(file: FoundFile, stream: BinaryIO, parser: ParsingProcess) -> Iterator[Document | LoadError]:
    kind = file.kind
    if kind is Kind.JSON_LINES:
        yield from read_json_lines(stream, file.source, name=file.name)
    elif kind in (Kind.CSV, Kind.TSV):
        yield from read_csv(stream, file.source, name=file.name, delimiter="\t" if kind is Kind.TSV else ",")
    elif kind is Kind.PARQUET:
        yield from read_parquet(stream, file.source, name=file.name)
    elif kind is Kind.MBOX:
        yield from _read_mailbox(file, stream, parser)
    elif kind in PARSED:
        yield _make_document(file, parser.parse(PARSED[kind], stream), file.metadata)
    else:
        text, title, metadata = _decode(stream.read(TEXT_BYTES_MAX + 1)), "", file.metadata
        if kind is Kind.MARKDOWN:
            text, title, said = read_markdown(text)
            metadata = {**said, **file.metadata}
        yield _make_document(file, Parsed(text, title), metadata)


def _read_mailbox(file: FoundFile, stream: BinaryIO, parser: ParsingProcess) -> Iterator[Document | LoadError]:
    for message in read_messages(stream):
        place = f"{file.source}:{message.number}"
        try:
            _check_message_size(message.size)
            parsed = parser.parse(PARSED[Kind.MAIL], message.file)
        except Unreadable as error:
            yield _refused(place, error)
        else:
            yield _make_document(file, parsed, file.metadata, f":{message.number}")


def _check_message_size(size: int) -> None:
    if size > CONTAINER_BYTES_MAX:
        raise Unreadable(f"has {size} bytes; the limit of a message is {CONTAINER_BYTES_MAX}.")


def _decode(data: bytes) -> str:
    if len(data) > TEXT_BYTES_MAX:
        raise Unreadable(f"has more than {TEXT_BYTES_MAX} bytes, the limit of a document; split it.")
    text = decode_text(data)
    if not text.strip():
        raise Unreadable("is empty or only white space; there is nothing in it.")
    return text


def _make_document(file: FoundFile, parsed: Parsed, metadata: Mapping[str, MetadataValue], place: str = "") -> Document:
    """Put together what was found and what was read; ``place`` is that of a document among several of a file."""
    title = parsed.title if 0 < len(parsed.title) <= TITLE_CHARS_MAX else file.title or PurePosixPath(file.name).stem
    known = {**{name: value for name, value in parsed.metadata.items() if _is_within_limits(name, value)}, **metadata}
    return Document(file.name + place, parsed.text, title, file.source + place, known)


def _is_within_limits(name: str, value: MetadataValue) -> bool:
    """Say whether what a file tells of itself can be kept: an endless list of recipients costs no document."""
    try:
        check_metadata({name: value})
    except InvalidInput:
        return False
    return True


def _refused(source: str, error: Unreadable) -> LoadError:
    return LoadError(source, InvalidInput("text", f"{source} {error}"))
