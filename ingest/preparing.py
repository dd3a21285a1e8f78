"""What is to be done for a document: nothing, new metadata, or new chunks under a new generation. Writes no chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from encoder.errors import InvalidInput
from ingest.chunking import Chunker
from ingest.documents import Document, check_document
from ingest.index.interface import DocumentKey, DocumentRecord, VectorIndex
from ingest.journal import Journal
from ingest.read_ahead import Item
from ingest.receipts import LoadError, Outcome, Receipt
from ingest.slots import Slot

Retry = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Preparer:
    """Compares documents with what the index has of them."""

    def __init__(self, index: VectorIndex, journal: Journal, chunker: Chunker, retry: Retry) -> None:
        self._index = index
        self._journal = journal
        self._chunker = chunker
        self._retry = retry

    async def prepare(self, slots: Sequence[Slot]) -> None:
        """Cut what is new, and have the journal give it a generation; no two of the documents are the same one."""
        open_slots = [slot for slot in slots if slot.receipt is None]
        keys = [slot.key for slot in open_slots]
        # Asked for first: what is finished by then is in the records. A version under way may become visible after
        # this one has been found unchanged, so a document that somebody writes is always written anew.
        under_way = await self._retry(lambda: self._journal.under_way(keys))
        records = await self._retry(lambda: self._index.get_records(keys)) if keys else {}
        work = [self._compare(slot, None if slot.key in under_way else records.get(slot.key)) for slot in open_slots]
        # All of them are waited for, also where one fails: none may go on once the documents are no longer held.
        for failure in await asyncio.gather(*work, return_exceptions=True):
            if failure:
                raise failure
        new = [slot for slot in open_slots if slot.chunks]
        if not new:
            return
        fences = await self._retry(lambda: self._index.get_fences([slot.key for slot in new]))
        generations = await self._retry(lambda: self._journal.begin([slot.key for slot in new], fences))
        for slot in new:
            slot.generation = generations[slot.key]

    async def _compare(self, slot: Slot, record: DocumentRecord | None) -> None:
        document = slot.document
        assert document is not None
        slot.content_hash = await asyncio.to_thread(document.content_hash)
        slot.metadata_hash = document.metadata_hash()
        if record and record.content_hash == slot.content_hash:
            count = await self._retry(lambda: self._index.count_chunks(slot.key, record.generation))
            if count == record.chunk_count:
                _keep(slot, document, record)
                return
        try:
            slot.chunks = await asyncio.to_thread(self._chunker.chunk, document, document.language)
        except InvalidInput as error:
            slot.reject(error)
            return
        slot.title = self._chunker.passage_title(document.title)
        slot.outstanding = len(slot.chunks)


def checked(item: Item) -> Slot:
    """Make an item's slot; one that breaks a limit gets its receipt at once."""
    if isinstance(item, LoadError):
        slot = Slot(DocumentKey("", item.document_id), item.source)
        slot.reject(item.error)
        return slot
    slot = Slot(DocumentKey(item.tenant, item.document_id), item.source, document=item)
    try:
        check_document(item)
        slot.text_bytes = len(item.text.encode())
    except InvalidInput as error:
        slot.reject(error)
    return slot


def _keep(slot: Slot, document: Document, record: DocumentRecord) -> None:
    """Leave the chunks as they are; where the metadata are others, have them written."""
    if record.metadata_hash != slot.metadata_hash:
        slot.record = replace(
            record, source=document.source, metadata=document.metadata, metadata_hash=slot.metadata_hash
        )
        return
    slot.receipt = Receipt(
        slot.key.document_id,
        slot.source,
        Outcome.UNCHANGED,
        record.chunk_count,
        record.token_count,
        record.generation,
    )
