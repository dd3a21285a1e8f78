"""What a document is, and what bounds it."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from encoder.errors import InvalidInput
from encoder.tokenizer import check_characters

DOCUMENT_ID_BYTES_MAX = 512
TITLE_CHARS_MAX = 2048
SOURCE_CHARS_MAX = 4096
TEXT_BYTES_MAX = 64 * 1024 * 1024
METADATA_FIELDS_MAX = 64
METADATA_STRING_CHARS_MAX = 1024
METADATA_LIST_ENTRIES_MAX = 64
METADATA_BYTES_MAX = 32 * 1024  # of all names and values: a thousand records have to fit a message
DEFAULT_TENANT = "default"
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DATETIME = "datetime"
METADATA_NAME = re.compile(r"[a-z0-9_]{1,64}")

MetadataValue: TypeAlias = str | int | float | bool | datetime | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name. Ingesting an id again replaces the tenant's document."""

    document_id: str
    text: str
    title: str = ""
    source: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict, hash=False)
    tenant: str = DEFAULT_TENANT
    growing: bool = False  # a version that begins with the whole text of the one before costs only what follows
    in_place_of: int | None = None  # the generation that it replaces, if any (0: none); it gives way to any other
    read_from: str = field(default="", compare=False)  # the file, and the row where it has some; the source unless said

    @property
    def place(self) -> str:
        """Say where it was read: what a row names as its source may be anything."""
        return self.read_from or self.source

    def content_hash(self) -> str:
        """SHA-256 over what chunks follow from: title, text and language, hexadecimal; none runs over into the next."""
        return _hash([self.title, self.text, self.language])

    @property
    def language(self) -> str:
        """Name the language of its metadata, by which source code is cut; empty where it has none."""
        found = self.metadata.get("language", "")
        return found if isinstance(found, str) else ""

    def metadata_hash(self) -> str:
        """SHA-256 over what is stored beside the text: source, metadata and its types, hexadecimal."""
        parts = [self.source]
        for name in sorted(self.metadata):
            value = self.metadata[name]
            values = _texts(value)
            parts += [name, type(value).__name__, str(len(values)), *values]
        return _hash(parts)


def check_document(document: Document) -> None:
    """Raise :class:`InvalidInput` naming the first field that breaks its limit."""
    for name in ("document_id", "title", "source", "text"):
        check_characters(name, getattr(document, name))
        if (place := getattr(document, name).find("\0")) >= 0:
            raise InvalidInput(name, f"{name} holds NUL (at character {place}), which no text has; remove it.")
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
    check_tenant(document.tenant)
    check_metadata(document.metadata)


def check_tenant(tenant: str) -> None:
    """Raise :class:`InvalidInput` for a name that no tenant can have."""
    if not _TENANT.fullmatch(tenant):
        raise InvalidInput(
            "tenant", f"tenant {tenant[:80]!r} is not 1 to 64 letters (A to Z), digits, - and _; give another name."
        )


def named_tenant(tenant: str) -> str:
    """Give the tenant that a request names, the default one where it names none; raises as :func:`check_tenant`."""
    check_tenant(tenant or DEFAULT_TENANT)
    return tenant or DEFAULT_TENANT


def check_metadata(metadata: Mapping[str, MetadataValue]) -> None:
    """Raise :class:`InvalidInput` naming the first ``metadata.NAME`` that breaks a limit or is of another type."""
    if len(metadata) > METADATA_FIELDS_MAX:
        raise InvalidInput("metadata", f"metadata has {len(metadata)} fields; the limit is {METADATA_FIELDS_MAX}.")
    for name, value in metadata.items():
        if not METADATA_NAME.fullmatch(name):
            message = f"metadata has a field {name[:80]!r}; a name is 1 to 64 small letters (a to z), digits and _."
            raise InvalidInput(f"metadata.{name[:80]}", message)
        check_metadata_value(f"metadata.{name}", value)
    size = sum(len(part.encode()) for name, value in metadata.items() for part in (name, *_texts(value)))
    if size > METADATA_BYTES_MAX:
        raise InvalidInput("metadata", f"metadata has {size} bytes; the limit is {METADATA_BYTES_MAX}.")


def check_metadata_value(place: str, value: object) -> None:
    """Raise :class:`InvalidInput` for a value that breaks a limit or is of no type that metadata has."""
    fault = ""
    if isinstance(value, str):
        _check_metadata_string(place, place, value)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int):
        fault = "" if -(2**63) <= value < 2**63 else "is beyond 64 bits"
    elif isinstance(value, float):
        fault = "" if math.isfinite(value) else "is not a finite number"
    elif isinstance(value, datetime):
        fault = "" if value.utcoffset() == timedelta(0) else "is not a time in UTC"
    elif isinstance(value, tuple):
        if len(value) > METADATA_LIST_ENTRIES_MAX:
            fault = f"has {len(value)} entries; the limit is {METADATA_LIST_ENTRIES_MAX}"
        for number, entry in enumerate(value):
            if not isinstance(entry, str):
                fault = f"has a value of type {type(entry).__name__} at {number}; all must be strings"
                break
            _check_metadata_string(place, f"{place}[{number}]", entry)
    else:
        fault = f"is of type {type(value).__name__}; it must be a string, number, truth value, time or list of strings"
    if fault:
        raise InvalidInput(place, f"{place} {fault}.")


def _texts(value: MetadataValue) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)


def _check_metadata_string(field_name: str, place: str, value: str) -> None:
    try:
        check_characters(place, value)
    except InvalidInput as error:
        raise InvalidInput(field_name, str(error)) from None
    if len(value) > METADATA_STRING_CHARS_MAX:
        message = f"{place} has {len(value)} characters; the limit is {METADATA_STRING_CHARS_MAX}, text has more room."
        raise InvalidInput(field_name, message)


def _hash(parts: list[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def value_to_json(value: MetadataValue) -> object:
    """Write a metadata value as JSON has it; a time is told from a text that looks like one."""
    if isinstance(value, datetime):
        return {_DATETIME: value.isoformat()}
    return list(value) if isinstance(value, tuple) else value


def value_from_json(value: Any) -> Any:  # noqa: ANN401 - of any type that JSON has
    """Read what :func:`value_to_json` wrote."""
    if isinstance(value, dict):
        return datetime.fromisoformat(value[_DATETIME])
    return tuple(value) if isinstance(value, list) else value
