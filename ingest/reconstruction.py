"""A document's text put together again from its chunks in the index, where they were cut from. Cuts nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.documents import Document
from ingest.index.interface import READ_MAX, DocumentRecord, StoredChunk, VectorIndex


async def read_document(index: VectorIndex, record: DocumentRecord) -> Document | None:
    """Read a committed document back; None where not all of its chunks are there (any more).

    Its text has the same characters at the same places and on the same lines, but for what no chunk holds: white space
    between chunks comes back as line breaks and blanks, and so do long runs of control characters.
    """
    chunks: list[StoredChunk] = []
    for segment in record.segments:
        end = segment.first_chunk + segment.chunk_count
        for first in range(segment.first_chunk, end, READ_MAX):
            last = min(first + READ_MAX, end) - 1
            chunks += await index.get_chunks(record.key, segment.generation, first, last)
    if len(chunks) != record.chunk_count:
        return None
    return Document(
        document_id=record.document_id,
        text=join_chunks(chunks, record.char_count),
        title=record.title,
        source=record.source,
        metadata=record.metadata,
        tenant=record.tenant,
    )


def join_chunks(chunks: Sequence[StoredChunk], char_count: int) -> str:
    """Join all chunks of a text of ``char_count`` characters, in order; of those that overlap nothing is repeated.

    Of a gap, how many characters and how many line breaks it had is known: breaks come first, what follows indents.
    """
    pieces: list[str] = []
    end, line = 0, 1
    for chunk in chunks:
        start = max(chunk.char_start, end)
        breaks = min(max(chunk.line_start - line, 0), start - end) if chunk.char_start >= end else 0
        pieces += ["\n" * breaks, " " * (start - end - breaks), chunk.text[start - chunk.char_start :]]
        end, line = max(chunk.char_end, end), chunk.line_end
    pieces.append("\n" * (char_count - end))
    return "".join(pieces)
