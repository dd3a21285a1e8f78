"""Letting the chunks that a document keeps carry the fields of its new record. Knows no engine.

The record is written first, with a mark that says so; the mark goes when all chunks carry the fields. Whoever opens the
index after an end in between finds the mark, and does it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from encoder.errors import Overloaded
from ingest.index import points, records
from ingest.index.fields import DocumentFields, fields_of
from ingest.index.interface import DocumentKey

# A few milliseconds' work, between which searches come in.
AT_ONCE = 32
ATTEMPTS_MAX = 10


async def describe(
    key: DocumentKey,
    read: Callable[[DocumentKey], Awaitable[records.RecordState | None]],
    set_fields: Callable[[Sequence[str], DocumentFields], Awaitable[None]],
    change: Callable[[DocumentKey, records.Change], Awaitable[object]],
) -> None:
    """Describe a document's chunks until its record is the one that they are described by.

    :class:`Overloaded` where others keep replacing it.
    """
    for _ in range(ATTEMPTS_MAX):
        state = await read(key)
        if state is None or state.record is None or not state.describing:
            return
        fields, ids = fields_of(state.record), points.chunk_point_ids(state.record)
        for start in range(0, len(ids), AT_ONCE):
            await set_fields(ids[start : start + AT_ONCE], fields)
        await change(key, records.describing_done(state.record))
    raise Overloaded(f"Others keep writing the record of {key.document_id} of {key.tenant}; try again.", 1.0)
