"""PDF files into text, page by page. Knows no images: a page that is one has no text."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import BinaryIO

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError

from ingest.loading.parsed import Parsed, Unreadable, in_utc, whole_characters


def parse(stream: BinaryIO) -> Parsed:
    """Read the text of all pages, a blank line between two, and what the file says of itself."""
    try:
        reader = PdfReader(stream)
        # Many files forbid printing and have no password for reading.
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("is protected by a password; save it without one.")
        pages = [whole_characters(page.extract_text()).strip() for page in reader.pages]
        title, metadata = _describe(reader)
    except FileNotDecryptedError:
        raise Unreadable("is protected by a password; save it without one.") from None
    except DependencyError as error:
        raise Unreadable(f"is encrypted in a way that is not known here ({error}); save it without that.") from None
    except PyPdfError as error:
        raise Unreadable(f"is not a PDF file that can be read ({error}); save it anew.") from None
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise Unreadable("has no text: its pages are images; have their text recognized (OCR) first.")
    return Parsed(text, title, {"page_count": len(pages), **metadata})


def _describe(reader: PdfReader) -> tuple[str, dict[str, str | int | datetime]]:
    """Read title, author and times; those that are broken are as good as none."""
    found = reader.metadata
    metadata: dict[str, str | int | datetime] = {}
    if found is None:
        return "", metadata
    if author := " ".join(whole_characters(found.author or "").split()):
        metadata["author"] = author
    with suppress(ValueError, OverflowError):
        if found.creation_date:
            metadata["created"] = in_utc(found.creation_date)
    with suppress(ValueError, OverflowError):
        if found.modification_date:
            metadata["modified"] = in_utc(found.modification_date)
    return " ".join(whole_characters(found.title or "").split()), metadata
