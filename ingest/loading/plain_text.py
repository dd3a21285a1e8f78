"""Text and Markdown into documents: UTF-8, or refused with the byte at fault. Knows no other format."""

from __future__ import annotations

import re

from ingest.documents import TITLE_CHARS_MAX, MetadataValue
from ingest.loading.front_matter import read_front_matter
from ingest.loading.parsed import Unreadable

_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]++([^\n]*?)[ \t]*#*[ \t]*\r?$", re.MULTILINE)
_HEADING_CHARS = 1 << 16  # a title is looked for in so much of the text


def decode_text(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark; :class:`Unreadable` names the byte that is at fault."""
    if (place := data.find(b"\0")) >= 0:
        raise Unreadable(
            f"is not text (byte {place} is NUL): it is binary, or UTF-16; give it its ending, or convert it."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 (byte {error.start}); convert it, for example with iconv.") from None


def read_markdown(text: str) -> tuple[str, str, dict[str, MetadataValue]]:
    """Give text, title and metadata: from simple front matter, which then is no text, and from the first heading."""
    text, metadata = read_front_matter(text)
    title = metadata.pop("title", "")
    if isinstance(title, str) and 0 < len(title) <= TITLE_CHARS_MAX:
        return text, title, metadata
    if heading := _HEADING.search(text, 0, _HEADING_CHARS):
        found = heading.group(1).strip()
        if 0 < len(found) <= TITLE_CHARS_MAX:
            return text, found, metadata
    return text, "", metadata
