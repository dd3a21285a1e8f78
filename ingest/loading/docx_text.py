"""Word files (.docx) into text, headings as in Markdown. Knows how large an archive may grow before it is opened."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from datetime import datetime
from typing import BinaryIO

import mammoth
from lxml import etree

from ingest.loading.html_text import read_html
from ingest.loading.parsed import Parsed, Unreadable, in_utc

UNPACKED_BYTES_MAX = 256 * 1024 * 1024
RATIO_MAX = 200  # of the unpacked size to the packed one
ENTRIES_MAX = 10_000
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"
_TITLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => h2:fresh"
_CORE = "docProps/core.xml"
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_TERMS = "{http://purl.org/dc/terms/}"


def parse(stream: BinaryIO) -> Parsed:
    """Read the body with its tables, notes and lists, and the properties."""
    if stream.read(len(_OLD_OFFICE)) == _OLD_OFFICE:
        raise Unreadable("is protected by a password, or a .doc file; save it as .docx without a password.")
    stream.seek(0)
    try:
        with zipfile.ZipFile(stream) as archive:
            _check_sizes(archive)
            if "word/document.xml" not in archive.namelist():
                raise Unreadable("is not a Word file: it has no word/document.xml.")
            title, metadata = _describe(archive)
    except zipfile.BadZipFile as error:
        raise Unreadable(f"is not a Word file that can be read ({error}); save it anew.") from None
    stream.seek(0)
    # A copy in memory has no name: mammoth would look for linked pictures beside it.
    copy = io.BytesIO(stream.read())
    page = mammoth.convert_to_html(copy, style_map=_TITLES, convert_image=mammoth.images.img_element(_leave_out))
    parsed = read_html(page.value)
    if not parsed.text:
        raise Unreadable("has no text.")
    return Parsed(parsed.text, title or parsed.title, metadata)


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuse an archive by what its directory says; Python's reader gives no more of an entry than is said there."""
    entries = archive.infolist()
    if len(entries) > ENTRIES_MAX:
        raise Unreadable(f"is an archive of {len(entries)} entries; the limit is {ENTRIES_MAX}.")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > UNPACKED_BYTES_MAX:
        raise Unreadable(f"unpacks to {unpacked} bytes; the limit is {UNPACKED_BYTES_MAX}.")
    packed = max(sum(entry.compress_size for entry in entries), 1)
    if unpacked > RATIO_MAX * packed:
        raise Unreadable(f"unpacks to {unpacked // packed} times its size; the limit is {RATIO_MAX} times.")


def _describe(archive: zipfile.ZipFile) -> tuple[str, dict[str, str | int | datetime]]:
    """Read title, author and times; those that are broken are as good as none."""
    metadata: dict[str, str | int | datetime] = {}
    try:
        parser = etree.XMLParser(resolve_entities=False, no_network=True)
        properties = etree.fromstring(archive.read(_CORE), parser)
    except (KeyError, etree.XMLSyntaxError):
        return "", metadata
    texts = {
        element.tag: " ".join((element.text or "").split()) for element in properties if isinstance(element.tag, str)
    }
    if author := texts.get(_DUBLIN_CORE + "creator"):
        metadata["author"] = author
    for name in ("created", "modified"):
        with suppress(ValueError, OverflowError):
            metadata[name] = in_utc(datetime.fromisoformat(texts.get(_TERMS + name, "")))
    return texts.get(_DUBLIN_CORE + "title", ""), metadata


def _leave_out(image: object) -> dict[str, str]:  # noqa: ARG001 - mammoth calls it for each image
    return {"src": ""}
