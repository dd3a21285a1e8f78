"""Making written documents visible: count, commit, have it on disk, close the journal's entry. Encodes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from encoder.errors import IndexUnavailable, MambaSearchError
from ingest.index.interface import DocumentRecord, VectorIndex
from ingest.journal import Attempt, Journal
from ingest.preparing import Retry
from ingest.receipts import Outcome
from ingest.slots import Slot


class Committer:
    """Settles documents whose chunks are written."""

    def __init__(self, index: VectorIndex, journal: Journal, retry: Retry, collect_after_s: float) -> None:
        """Chunks of older generations are garbage after ``collect_after_s``: no search may take longer."""
        self._index = index
        self._journal = journal
        self._retry = retry
        self._collect_after_s = collect_after_s

    async def settle(self, slots: Sequence[Slot]) -> None:
        """Give each its receipt: committed, withdrawn, or as it has it already. What is committed is on disk then."""
        work = [self._settle(slot) for slot in slots if slot.receipt is None]
        for failure in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure
        written = [
            slot for slot in slots if slot.receipt and slot.receipt.outcome in (Outcome.INGESTED, Outcome.UPDATED)
        ]
        if written:
            await self._retry(self._index.flush)
        new = [Attempt(slot.key, slot.generation) for slot in written if slot.generation]
        if new:
            grown = {Attempt(slot.key, slot.generation) for slot in written if slot.growth}
            await self._retry(lambda: self._journal.finish(new, self._collect_after_s, grown=grown))

    async def _settle(self, slot: Slot) -> None:
        if slot.record is not None:
            await self._commit(slot, slot.record, Outcome.UPDATED, in_place_of=slot.record.generation)
        elif slot.error is not None:
            await self._withdraw(slot, slot.error)
        else:
            found = await self._retry(lambda: self._index.count_chunks(slot.key, slot.generation))
            if found != len(slot.chunks):
                await self._give_way(slot, f"{found} of {len(slot.chunks)} chunks of it are in the index")
            elif not self._journal.holds(Attempt(slot.key, slot.generation)):
                await self._give_way(slot, "its lease ran out while it was being written")
            else:
                await self._commit(slot, _record(slot), Outcome.INGESTED, in_place_of=slot.in_place_of)

    async def _commit(self, slot: Slot, record: DocumentRecord, outcome: Outcome, *, in_place_of: int | None) -> None:
        if not await self._retry(lambda: self._index.commit_record(record, in_place_of=in_place_of)):
            await self._give_way(slot, "it was taken over while it was being written")
            return
        slot.settle(outcome, record)

    async def _give_way(self, slot: Slot, reason: str) -> None:
        """Clear away what will not be visible: something newer came first, or else this attempt has failed."""
        newest = (await self._retry(lambda: self._index.get_records([slot.key]))).get(slot.key)
        fence = (await self._retry(lambda: self._index.get_fences([slot.key]))).get(slot.key, 0)
        # A newer attempt that came to nothing has fenced it, too; what is visible then is older.
        is_newest = fence <= slot.generation or (newest is not None and newest.generation < slot.generation)
        if slot.generation and is_newest:
            await self._withdraw(slot, IndexUnavailable(f"{slot.key.document_id}: {reason}; ingest it again."))
            wanted = slot.document.in_place_of if slot.document else None
            if wanted not in (None, newest.generation if newest else 0):
                slot.give_way(newest, fence)
            return
        if slot.generation:
            # It may have been visible between two answers that were lost, and be read by a search.
            attempt = Attempt(slot.key, slot.generation)
            await self._retry(lambda: self._journal.discard(attempt, self._collect_after_s))
        slot.give_way(newest, fence)

    async def _withdraw(self, slot: Slot, error: MambaSearchError) -> None:
        """Take back what was written of a generation that was never visible."""
        if slot.generation:
            await self._retry(lambda: self._index.delete_chunks(slot.key, generation=slot.generation))
            await self._retry(self._index.flush)
            await self._retry(lambda: self._journal.withdraw(Attempt(slot.key, slot.generation)))
        slot.reject(error)


def _record(slot: Slot) -> DocumentRecord:
    document, growth = slot.document, slot.growth
    assert document is not None
    assert slot.ingested_at is not None
    return DocumentRecord(
        tenant=slot.key.tenant,
        document_id=slot.key.document_id,
        title=document.title,
        source=document.source,
        metadata=document.metadata,
        generation=slot.generation,
        chunk_count=slot.first_chunk + len(slot.chunks),
        token_count=(growth.token_count if growth else 0) + sum(chunk.token_count for chunk in slot.chunks),
        char_count=len(document.text),
        content_hash=slot.content_hash,
        metadata_hash=slot.metadata_hash,
        ingested_at=slot.ingested_at,
        earlier=growth.segments if growth else (),
    )
