"""An index into another one, of another model or chunker, while the first one is searched and written to.

Documents keep their generations, so that what is newer shows by comparing numbers, and so that whoever writes to the
second index goes on from there. A pass copies what differs; it is made again until nothing does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from encoder.errors import InvalidInput
from ingest.bulk.documents import DeadLetter, NewDocument, cut_document, take_sound
from ingest.bulk.filling import DocumentEncoder, write_documents
from ingest.chunking import Chunker
from ingest.index.interface import DocumentKey, DocumentRecord, VectorIndex
from ingest.reconstruction import read_document

PAGE_RECORDS = 256
# Documents that are encoded together; a longer one is alone.
GROUP_TOKENS = 65_536


@dataclass(slots=True)
class Pass:
    """What one comparison of both indexes found and did."""

    compared: int = 0
    copied: int = 0
    updated: int = 0  # in their metadata alone
    deleted: int = 0
    retry: int = 0  # replaced while they were read, so that chunks of them were missing
    changing: str = ""  # the last document that differed
    failed: list[DeadLetter] = field(default_factory=list)

    @property
    def changes(self) -> int:
        """Say how much differed."""
        return self.copied + self.updated + self.deleted + self.retry


class Reindexer:
    """Copies from ``source`` to ``target``."""

    def __init__(
        self,
        source: VectorIndex,
        target: VectorIndex,
        encoder: DocumentEncoder,
        chunker: Chunker,
        on_progress: Callable[[Pass], None],
    ) -> None:
        self._source = source
        self._target = target
        self._encoder = encoder
        self._chunker = chunker
        self._on_progress = on_progress
        self._superseded: list[tuple[DocumentKey, int]] = []

    async def catch_up(self, *, alone: bool) -> Pass:
        """Make one pass; ``alone`` says that nobody else writes to the target, so that what it has too many goes.

        A document that cannot be cut or encoded is a failure of the pass, and the others are copied. Raises what the
        indexes and the encoder raise.
        """
        found = Pass()
        filling: asyncio.Task[None] | None = None
        try:
            async for documents in self._cut(found):
                if filling:
                    await filling
                filling = asyncio.create_task(self._fill(documents, found))  # the next ones are read meanwhile
            if filling:
                await filling
        finally:
            if filling and not filling.done():
                filling.cancel()
                await asyncio.wait([filling])
        await self._delete(found, alone=alone)
        if alone:
            await self.clear_superseded()
        await self._target.flush()
        return found

    async def clear_superseded(self) -> None:
        """Delete chunks of generations that have been replaced in the target; nobody may read them any more."""
        for key, generation in self._superseded:
            await self._target.delete_chunks(key, below=generation)
        self._superseded.clear()

    @property
    def superseded(self) -> int:
        """Say for how many documents there is something to clear."""
        return len(self._superseded)

    async def _cut(self, found: Pass) -> AsyncIterator[list[NewDocument]]:
        """Read and cut what is newer in the source, in groups of about so many tokens."""
        group: list[NewDocument] = []
        tokens = 0
        async for records in _pages(self._source):
            theirs = await self._target.get_records([record.key for record in records])
            for record in records:
                found.compared += 1
                document = await self._compare(record, theirs.get(record.key), found)
                if document is not None:
                    if group and tokens + document.record.token_count > GROUP_TOKENS:
                        yield group
                        group, tokens = [], 0
                    group.append(document)
                    tokens += document.record.token_count
            self._on_progress(found)
        if group:
            yield group

    async def _compare(self, ours: DocumentRecord, theirs: DocumentRecord | None, found: Pass) -> NewDocument | None:
        """Give the document where it has to be copied; write new metadata where that is all."""
        if theirs is not None and theirs.generation > ours.generation:
            return None
        if theirs is not None and theirs.generation == ours.generation:
            # Of a document that has grown by blanks alone, the text is another, too, and the chunks are the same.
            differs = (theirs.metadata_hash, theirs.content_hash) != (ours.metadata_hash, ours.content_hash)
            # A writer of the new model may have changed them since.
            if differs and theirs.ingested_at < ours.ingested_at:
                renewed = replace(
                    ours, chunk_count=theirs.chunk_count, token_count=theirs.token_count, earlier=theirs.earlier
                )
                found.updated += await self._target.commit_record(renewed, in_place_of=theirs.generation)
            return None
        found.changing = ours.document_id
        document = await read_document(self._source, ours)
        if document is None:
            found.retry += 1
            return None
        try:
            return await asyncio.to_thread(cut_document, document, self._chunker, ours)
        except InvalidInput as error:
            found.failed.append(DeadLetter(ours.source, ours.document_id, "cut", str(error)))
            return None

    async def _fill(self, documents: Sequence[NewDocument], found: Pass) -> None:
        await self._encoder.encode(documents)
        sound = take_sound(documents, found.failed)
        found.copied += len(sound) - await write_documents(self._target, sound)
        self._superseded += [
            (document.record.key, document.record.generation) for document in sound if document.record.generation > 1
        ]
        self._on_progress(found)

    async def _delete(self, found: Pass, *, alone: bool) -> None:
        """Delete what the source no longer has: where others write to the target, only what it knows to be deleted."""
        async for records in _pages(self._target):
            keys = [record.key for record in records]
            present = await self._source.get_records(keys)
            missing = [record for record in records if record.key not in present]
            fences = await self._source.get_fences([record.key for record in missing])
            for record in missing:
                fence = fences.get(record.key, 0)
                if not alone and fence < record.generation:
                    continue
                generation = max(fence, record.generation)
                found.deleted += await self._target.delete_record(record.key, generation)
                self._superseded.append((record.key, generation + 1))
                if alone:
                    await self._target.drop_tombstone(record.key, generation)


async def _pages(index: VectorIndex) -> AsyncIterator[list[DocumentRecord]]:
    after = ""
    while True:
        records, after = await index.list_records(None, after, PAGE_RECORDS)
        if records:
            yield records
        if not after:
            return
