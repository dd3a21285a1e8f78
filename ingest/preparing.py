"""What is to be done for a document: nothing, new metadata, or new chunks under a new generation. Writes no chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from encoder.errors import InvalidInput
from ingest.cutting.cutter import CutRequest, Cutter
from ingest.documents import Document, check_document
from ingest.growing import begins_with
from ingest.index.interface import DocumentKey, DocumentRecord, VectorIndex
from ingest.journal import Journal
from ingest.read_ahead import Item
from ingest.receipts import LoadError, Outcome
from ingest.slots import Slot

Retry = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Preparer:
    """Compares documents with what the index has of them."""

    def __init__(self, index: VectorIndex, journal: Journal, cutter: Cutter, retry: Retry) -> None:
        self._index = index
        self._journal = journal
        self._cutter = cutter
        self._retry = retry

    async def prepare(self, slots: Sequence[Slot]) -> None:
        """Cut what is new, and have the journal give it a generation; no two of the documents are the same one."""
        open_slots = [slot for slot in slots if slot.receipt is None]
        keys = [slot.key for slot in open_slots]
        # Asked for first: what is finished by then is in the records.
        under_way = await self._retry(lambda: self._journal.under_way(keys))
        records = await self._retry(lambda: self._index.get_records(keys)) if keys else {}
        await asyncio.to_thread(_hash, open_slots)
        work = [
            self._compare(slot, record, under_way=slot.key in under_way)
            for slot in open_slots
            if (record := records.get(slot.key))
        ]
        # All of them are waited for, also where one fails: none may go on once the documents are no longer held.
        for failure in await asyncio.gather(*work, return_exceptions=True):
            if failure:
                raise failure
        for slot in open_slots:
            _give_way(slot, records.get(slot.key))
        await self._cut([slot for slot in open_slots if not (slot.receipt or slot.record)])
        for slot in open_slots:
            if slot.growth and not (slot.chunks or slot.receipt):
                await self._add_blanks(slot, slot.growth, under_way=slot.key in under_way)
        new = [slot for slot in open_slots if slot.chunks]
        if not new:
            return
        fences = await self._retry(lambda: self._index.get_fences([slot.key for slot in new]))
        generations = await self._retry(lambda: self._journal.begin([slot.key for slot in new], fences))
        for slot in new:
            slot.begin(generations[slot.key])

    async def _compare(self, slot: Slot, record: DocumentRecord, *, under_way: bool) -> None:
        """Choose between nothing, new metadata, what has been added, and all.

        A version that is under way may become visible after this one has been found unchanged, so a document that
        somebody writes is written again. Adding to it is right all the same: that is committed only in place of the
        version that it adds to.
        """
        document = slot.document
        assert document is not None
        if record.content_hash == slot.content_hash:
            if not under_way and await self._is_whole(record):
                _keep(slot, document, record)
        elif (
            document.growing and await asyncio.to_thread(begins_with, document, record) and await self._is_whole(record)
        ):
            slot.growth = record

    async def _is_whole(self, record: DocumentRecord) -> bool:
        count = await self._retry(lambda: self._index.count_chunks(record.key, *record.generations))
        return bool(count == record.chunk_count)

    async def _cut(self, slots: Sequence[Slot]) -> None:
        """Cut documents, or what has been added to them; one that cannot be cut has its receipt then."""
        requests = [
            CutRequest(slot.document, slot.growth.char_count if slot.growth else 0) for slot in slots if slot.document
        ]
        for slot, found in zip(slots, await self._cutter.cut(requests), strict=True):
            if isinstance(found, InvalidInput):
                slot.reject(found)
            else:
                slot.title, slot.chunks, slot.sparse = found.title, found.chunks, found.sparse
                slot.outstanding = len(slot.chunks)

    async def _add_blanks(self, slot: Slot, record: DocumentRecord, *, under_way: bool) -> None:
        """Take on what has been added to a document where no chunk is made of it."""
        document = slot.document
        assert document is not None
        if under_way:
            await self.cut_whole(slot)
            return
        slot.growth = None
        slot.record = replace(
            _with_metadata(record, slot, document), char_count=len(document.text), content_hash=slot.content_hash
        )

    async def cut_whole(self, slot: Slot) -> None:
        """Cut all of a document that could not be added to after all; nothing of it may have been written."""
        slot.growth = None
        await self._cut([slot])


def _hash(slots: Sequence[Slot]) -> None:
    for slot in slots:
        assert slot.document is not None
        slot.content_hash = slot.document.content_hash()
        slot.metadata_hash = slot.document.metadata_hash()


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


def _give_way(slot: Slot, record: DocumentRecord | None) -> None:
    """Leave alone what is not the version that the document is to replace."""
    document, visible = slot.document, record.generation if record else 0
    if document is not None and slot.receipt is None and document.in_place_of not in (None, visible):
        slot.record, slot.growth = None, None
        slot.give_way(record, visible)


def _keep(slot: Slot, document: Document, record: DocumentRecord) -> None:
    """Leave the chunks as they are; where the metadata are others, have them written."""
    if record.metadata_hash != slot.metadata_hash:
        slot.record = _with_metadata(record, slot, document)
        return
    slot.settle(Outcome.UNCHANGED, record)


def _with_metadata(record: DocumentRecord, slot: Slot, document: Document) -> DocumentRecord:
    return replace(
        record,
        source=document.source,
        metadata=document.metadata,
        metadata_hash=slot.metadata_hash,
        ingested_at=datetime.now(UTC),
    )
