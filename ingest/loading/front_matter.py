"""Front matter of Markdown: the simple part of YAML, names with plain values or lists of them. Knows no nesting."""

from __future__ import annotations

import re

from encoder.errors import InvalidInput
from ingest.documents import METADATA_FIELDS_MAX, MetadataValue, check_metadata
from ingest.loading.values import metadata_name, read_time

FIELDS_MAX = METADATA_FIELDS_MAX - 4  # what else is known of a file needs some
_CHARS_MAX = 1 << 16
_BLOCK = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"([A-Za-z][\w -]*):(?:[ \t]+(.*))?")
_ENTRY = re.compile(r"[ \t]*-[ \t]+(.*)")
_WHOLE = re.compile(r"[-+]?(?:0|[1-9]\d*)")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9]\d*)\.\d+(?:[eE][-+]?\d+)?")
_TRUTH = {"true": True, "false": False}
_EMPTY = ("", "~", "null")
# How values begin that are more than plain ones.
_NOT_SIMPLE = tuple("[]{}&*!|>%@`,?:-")


class _NotSimple(Exception):
    """The front matter says more than is understood here."""


def read_front_matter(text: str) -> tuple[str, dict[str, MetadataValue]]:
    """Take off front matter and give its values; where it is not simple, it stays part of the text, all of it."""
    block = _BLOCK.match(text[:_CHARS_MAX]) if text.startswith("---") else None
    if not block:
        return text, {}
    try:
        metadata = _read_fields(block.group(1).splitlines())
        check_metadata({name: value for name, value in metadata.items() if name != "title"})
    except (_NotSimple, InvalidInput):
        return text, {}
    if len(metadata) > FIELDS_MAX:
        return text, {}
    return text[block.end() :], metadata


def _read_fields(lines: list[str]) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    entries: dict[str, list[str]] = {}
    open_list = ""  # the name whose entries follow, a line each
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if open_list and (entry := _ENTRY.fullmatch(line)):
            entries.setdefault(open_list, []).append(_string(entry.group(1)))
            continue
        if not (found := _FIELD.fullmatch(line.rstrip())):
            raise _NotSimple
        name, value = metadata_name(found.group(1)), (found.group(2) or "").strip()
        if not name or name in metadata or name in entries:
            raise _NotSimple
        open_list = "" if value else name
        if value.startswith("[") and value.endswith("]"):
            entries[name] = [_string(entry) for entry in value[1:-1].split(",") if entry.strip()]
        elif value not in _EMPTY:
            metadata[name] = _string(value) if name == "title" else _value(value)
    return metadata | {name: tuple(values) for name, values in entries.items()}


def _value(text: str) -> MetadataValue:
    if text in _TRUTH:
        return _TRUTH[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if moment := read_time(text):
        return moment
    return _string(text)


def _string(text: str) -> str:
    text = text.strip()
    for quote in ("'", '"'):
        if text.startswith(quote):
            if len(text) < 2 or not text.endswith(quote) or quote in text[1:-1] or "\\" in text:
                raise _NotSimple
            return text[1:-1]
    # As YAML has it: a comment, a name with a value, a value of another kind.
    if " #" in text or ": " in text or text.endswith(":") or (text.startswith(_NOT_SIMPLE) and not text[1:2].isdigit()):
        raise _NotSimple
    return text
