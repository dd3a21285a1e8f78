"""Rows of files into documents: which field is the id, the text, the title; all formats of rows share it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from encoder.errors import InvalidInput
from ingest.documents import DEFAULT_TENANT, Document, MetadataValue, check_metadata, check_tenant

ID_FIELDS = ("document_id", "_id", "id")
FIELDS = frozenset((*ID_FIELDS, "text", "title", "source", "tenant"))


def make_document(
    row: Mapping[str, object], metadata: Mapping[str, MetadataValue], *, place: str, default_id: str
) -> Document:
    """Make a document of a row; ``place`` names it in errors, and is its source where it names none.

    :class:`InvalidInput` names the field that is missing, of another type, or breaks its limit.
    """
    id_field = next((field for field in ID_FIELDS if row.get(field) is not None), None)
    document_id = default_id if id_field is None else _read_id(row[id_field], id_field, place)
    if row.get("text") is None:
        raise InvalidInput("text", f"{place}: text is missing; give the document's text.")
    document = Document(
        document_id=document_id,
        text=_read_string(row, "text", place),
        title=_read_string(row, "title", place),
        source=_read_string(row, "source", place) or place,
        metadata=metadata,
        tenant=DEFAULT_TENANT if row.get("tenant") is None else _read_string(row, "tenant", place),
        read_from=place,
    )
    try:
        check_tenant(document.tenant)
        check_metadata(metadata)
    except InvalidInput as error:
        raise InvalidInput(error.field, f"{place}: {error}") from None
    return document


def _read_id(value: object, field: str, place: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return value
    raise InvalidInput(field, f"{place}: {field} is {_shown(value)}; it must be a string or a whole number.")


def _read_string(row: Mapping[str, object], field: str, place: str) -> str:
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(field, f"{place}: {field} is {_shown(value)}; it must be a string.")
    return value


def _shown(value: object) -> str:
    return json.dumps(value, default=str)[:60]
