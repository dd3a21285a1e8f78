"""One e-mail message into text: plain text where it has any, else its web page. Attachments are not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from email import policy
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from typing import BinaryIO

from ingest.loading.parsed import Parsed, Unreadable, in_utc, whole_characters


def parse(stream: BinaryIO) -> Parsed:
    """Read the body; the title is the subject, the metadata say from whom the message is, and when it was sent."""
    message = BytesParser(policy=policy.default).parse(stream)
    assert isinstance(message, EmailMessage)  # as this policy makes them
    if not message.keys():
        raise Unreadable("has no headers of a message; it is not an e-mail.")
    parts = list(_text_parts(message))
    plain = [_content(part) for part in parts if part.get_content_type() == "text/plain"]
    text = "\n\n".join(part.strip() for part in plain if part.strip())
    if not text:
        pages = [_page_text(_content(part)) for part in parts if part.get_content_type() == "text/html"]
        text = "\n\n".join(page for page in pages if page)
    if not text:
        raise Unreadable("has no text; attachments are not read.")
    metadata: dict[str, str | int | datetime] = {}
    for name in ("from", "to", "message-id"):
        if value := _header(message, name):
            metadata[name.replace("-", "_")] = value
    with suppress(ValueError, OverflowError):
        metadata["date"] = in_utc(parsedate_to_datetime(_header(message, "date")))
    return Parsed(text, _header(message, "subject"), metadata)


def _text_parts(message: EmailMessage) -> Iterator[EmailMessage]:
    """Find the parts that are shown as the message itself, without recursion: parts nest as deep as they like."""
    waiting: list[Message] = [message]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, EmailMessage) or part.is_attachment() or part.get_content_type() == "message/rfc822":
            continue
        if part.is_multipart():
            inner = part.get_payload()
            assert isinstance(inner, list)
            waiting.extend(entry for entry in reversed(inner) if isinstance(entry, Message))
        elif part.get_content_type() in ("text/plain", "text/html"):
            yield part


def _content(part: EmailMessage) -> str:
    try:
        # No sender can be asked to repair an old message: what is not in its encoding shows as U+FFFD.
        content = part.get_content(errors="replace")
    except LookupError:
        raise Unreadable(f"names an encoding {part.get_content_charset('')!r} that is not known.") from None
    return whole_characters(content).replace("\r\n", "\n")


def _page_text(page: str) -> str:
    from ingest.loading.html_text import read_html  # of the extra `documents`; most messages do without

    return read_html(page).text


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = message.get(name, "")
    except (AttributeError, IndexError, TypeError, ValueError):  # what Python's parser of headers raises at odd ones
        return ""
    return whole_characters(" ".join(str(value).split()))
