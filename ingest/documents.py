"""What a document is, and what bounds it."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from encoder.errors import InvalidInput
from encoder.tokenizer import check_characters

DOCUMENT_ID_BYTES_MAX = 512
TITLE_CHARS_MAX = 2048
SOURCE_CHARS_MAX = 4096
TEXT_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name. Ingesting an id again replaces the document."""

    document_id: str
    text: str
    title: str = ""
    source: str = ""

    def content_hash(self) -> str:
        """SHA-256 over title, source and text, hexadecimal; each is preceded by its length, so that none runs over."""
        digest = hashlib.sha256()
        for part in (self.title, self.source, self.text):
            data = part.encode()
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.hexdigest()


def check_document(document: Document) -> None:
    """Raise :class:`InvalidInput` naming the first field that breaks its limit."""
    for field in ("document_id", "title", "source", "text"):
        check_characters(field, getattr(document, field))
    id_bytes = len(document.document_id.encode())
    if not 1 <= id_bytes <= DOCUMENT_ID_BYTES_MAX:
        raise InvalidInput(
            "document_id", f"document_id has {id_bytes} bytes; 1 to {DOCUMENT_ID_BYTES_MAX} are allowed."
        )
    if any(unicodedata.category(char) == "Cc" for char in document.document_id):
        raise InvalidInput("document_id", f"document_id {document.document_id!r} holds a control character; remove it.")
    if len(document.title) > TITLE_CHARS_MAX:
        raise InvalidInput("title", f"title has {len(document.title)} characters; the limit is {TITLE_CHARS_MAX}.")
    if len(document.source) > SOURCE_CHARS_MAX:
        raise InvalidInput("source", f"source has {len(document.source)} characters; the limit is {SOURCE_CHARS_MAX}.")
    if not document.text.strip():
        raise InvalidInput("text", "text is empty or only white space; there is nothing to find in it.")
    text_bytes = len(document.text.encode())
    if text_bytes > TEXT_BYTES_MAX:
        raise InvalidInput("text", f"text has {text_bytes} bytes; the limit is {TEXT_BYTES_MAX}. Split the document.")
