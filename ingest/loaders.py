"""Files into documents: plain text, Markdown, JSON lines. One at a time, never all in memory. Knows no index.

What cannot be read becomes a :class:`LoadError`, and the rest goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from encoder.errors import InvalidInput
from ingest.documents import TEXT_BYTES_MAX, TITLE_CHARS_MAX, Document
from ingest.files import FoundFile, find_files
from ingest.json_lines import looks_like_json_lines, read_json_lines
from ingest.receipts import LoadError

STDIN = "-"
MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})
JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
TEXT_SUFFIXES = frozenset({".txt", ".text"})
SUFFIXES = MARKDOWN_SUFFIXES | JSON_LINES_SUFFIXES | TEXT_SUFFIXES
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]++([^\n]*?)[ \t]*#*[ \t]*\r?$", re.MULTILINE)
_HEADING_CHARS = 1 << 16  # a title is looked for in so much of the text


def load_documents(paths: Sequence[Path], stdin: BinaryIO | None = None) -> Iterator[Document | LoadError]:
    """Read files and folders, in the order given; ``-`` is ``stdin``.

    A folder gives its ``.txt``, ``.md`` and ``.jsonl`` files and those of its folders, in the order of their names,
    hidden ones left out, links to folders not followed, links that lead out of it refused. A file named by itself is
    read as plain text where its suffix is another. A document's id is its path relative to the folder given (the name
    alone for a file); JSON lines bring their own. Two files with one id are an error: the second would replace the
    first.
    """
    sources: dict[str, str] = {}
    for path in paths:
        if str(path) == STDIN:
            if stdin is None:
                raise InvalidInput("paths", "- stands for standard input, of which there is none here.")
            yield from _load_stdin(stdin)
            continue
        for found in find_files(path, SUFFIXES):
            if isinstance(found, LoadError):
                yield found
            elif found.path.suffix.lower() in JSON_LINES_SUFFIXES:
                yield from _load_json_lines(found)
            elif (first := sources.setdefault(found.name, str(found.path))) != str(found.path):
                message = f"{found.path} has the same document_id, {found.name!r}, as {first}; give a common folder."
                yield LoadError(str(found.path), InvalidInput("document_id", message))
            else:
                yield _load_text(found)


def total_bytes(paths: Sequence[Path]) -> int | None:
    """Add up the sizes of the files that :func:`load_documents` will read; None where standard input is among them."""
    if any(str(path) == STDIN for path in paths):
        return None
    found = (found for path in paths for found in find_files(path, SUFFIXES))
    return sum(file.size for file in found if isinstance(file, FoundFile))


def _load_stdin(stdin: BinaryIO) -> Iterator[Document | LoadError]:
    """Read JSON lines where the first line is one; else all of it is one plain text."""
    first = stdin.readline(TEXT_BYTES_MAX + 1)
    if looks_like_json_lines(first):
        yield from read_json_lines(stdin, "stdin", first_line=first)
        return
    data = first + stdin.read(TEXT_BYTES_MAX + 1 - len(first))
    yield _make_document(data, name="stdin", source="stdin", title="", markdown=False)


def _load_json_lines(file: FoundFile) -> Iterator[Document | LoadError]:
    if not file.size:
        yield LoadError(str(file.path), InvalidInput("text", f"{file.path} is empty; it holds no document."))
        return
    try:
        with file.path.open("rb") as stream:
            yield from read_json_lines(stream, file.path.as_posix(), name=file.name)
    except OSError as error:
        yield _unreadable(file.path, error)


def _load_text(file: FoundFile) -> Document | LoadError:
    try:
        with file.path.open("rb") as stream:
            data = stream.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        return _unreadable(file.path, error)
    markdown = file.path.suffix.lower() in MARKDOWN_SUFFIXES
    return _make_document(data, name=file.name, source=file.path.as_posix(), title=file.path.stem, markdown=markdown)


def _make_document(data: bytes, *, name: str, source: str, title: str, markdown: bool) -> Document | LoadError:
    if len(data) > TEXT_BYTES_MAX:
        message = f"{source} has more than {TEXT_BYTES_MAX} bytes, the limit of a document; split it."
        return LoadError(source, InvalidInput("text", message))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{source} is not UTF-8 (byte {error.start}); convert it, for example with iconv."
        return LoadError(source, InvalidInput("text", message))
    if not text.strip():
        return LoadError(
            source, InvalidInput("text", f"{source} is empty or only white space; there is nothing in it.")
        )
    if markdown and (heading := _HEADING.search(text, 0, _HEADING_CHARS)):
        found = heading.group(1).strip()
        title = found if 0 < len(found) <= TITLE_CHARS_MAX else title
    return Document(document_id=name, text=text, title=title, source=source)


def _unreadable(path: Path, error: OSError) -> LoadError:
    return LoadError(str(path), InvalidInput("paths", f"{path} cannot be read ({error.strerror})."))
