"""Kinds of files: how they are recognized, and how large they may be. Knows no content."""

from __future__ import annotations

from enum import Enum
from pathlib import PurePosixPath

from ingest.documents import TEXT_BYTES_MAX

# Of files that hold more than text. Those that are read row by row, or message by message, may have any size.
CONTAINER_BYTES_MAX = 256 * 1024 * 1024


class Kind(Enum):
    """What a file is; the value says it in a message."""

    TEXT = "plain text"
    MARKDOWN = "Markdown"
    HTML = "a web page"
    PDF = "PDF"
    DOCX = "a Word file"
    MAIL = "an e-mail"
    MBOX = "a mailbox"
    JSON_LINES = "JSON lines"
    CSV = "CSV"
    TSV = "TSV"
    PARQUET = "Parquet"


SUFFIXES = {
    ".txt": Kind.TEXT,
    ".text": Kind.TEXT,
    ".md": Kind.MARKDOWN,
    ".markdown": Kind.MARKDOWN,
    ".html": Kind.HTML,
    ".htm": Kind.HTML,
    ".pdf": Kind.PDF,
    ".docx": Kind.DOCX,
    ".eml": Kind.MAIL,
    ".mbox": Kind.MBOX,
    ".jsonl": Kind.JSON_LINES,
    ".ndjson": Kind.JSON_LINES,
    ".csv": Kind.CSV,
    ".tsv": Kind.TSV,
    ".parquet": Kind.PARQUET,
}
CONTENT_TYPES = {
    "text/plain": Kind.TEXT,
    "text/markdown": Kind.MARKDOWN,
    "text/html": Kind.HTML,
    "application/xhtml+xml": Kind.HTML,
    "application/pdf": Kind.PDF,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": Kind.DOCX,
    "message/rfc822": Kind.MAIL,
    "application/mbox": Kind.MBOX,
    "application/jsonl": Kind.JSON_LINES,
    "application/x-ndjson": Kind.JSON_LINES,
    "text/csv": Kind.CSV,
    "text/tab-separated-values": Kind.TSV,
    "application/vnd.apache.parquet": Kind.PARQUET,
}
BYTES_MAX = {
    Kind.TEXT: TEXT_BYTES_MAX,
    Kind.MARKDOWN: TEXT_BYTES_MAX,
    Kind.HTML: TEXT_BYTES_MAX,
    Kind.PDF: CONTAINER_BYTES_MAX,
    Kind.DOCX: CONTAINER_BYTES_MAX,
    Kind.MAIL: CONTAINER_BYTES_MAX,
}


def suffix_of(name: str) -> str:
    """Give the ending of a name, in small letters: ``.pdf``; empty where it has none."""
    return PurePosixPath(name).suffix.lower()


def kind_of(name: str) -> Kind:
    """Tell by its name what a file is; plain text where the ending says nothing."""
    return SUFFIXES.get(suffix_of(name), Kind.TEXT)
