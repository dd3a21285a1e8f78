"""One attempt at a job that deletes: a tenant's documents, page by page, those that a filter means."""

from __future__ import annotations

import asyncio

from encoder.errors import NotFound
from ingest.filters import matches
from ingest.index.interface import DocumentRecord, VectorIndex
from ingest.jobs.job_log import JobLog
from ingest.jobs.states import Counts, Settled
from ingest.pipeline import Ingestor

PAGE_RECORDS = 256
AT_ONCE = 8


class DeleteRun:
    """An attempt at a job of the kind DELETE. What an attempt before it deleted is no longer listed."""

    def __init__(self, log: JobLog, ingestor: Ingestor, index: VectorIndex) -> None:
        self._log = log
        self._ingestor = ingestor
        self._index = index

    async def run(self) -> None:
        """Delete what there is; what stops it (an index that is away) is raised."""
        request, after = self._log.job.request, ""
        while True:
            records, after = await self._index.list_records(request.job_tenant, after, PAGE_RECORDS)
            meant = [record for record in records if request.where is None or matches(request.where, record)]
            for start in range(0, len(meant), AT_ONCE):
                work = [self._delete(record) for record in meant[start : start + AT_ONCE]]
                for failure in await asyncio.gather(*work, return_exceptions=True):
                    if isinstance(failure, BaseException):
                        raise failure
            if not after:
                break
        await self._log.flush()

    async def _delete(self, record: DocumentRecord) -> None:
        try:
            chunks = await self._ingestor.delete(record.document_id, record.tenant)
        except NotFound:  # somebody else was first
            return
        name = f"{record.generation}/{record.document_id}".encode()
        counts = Counts(deleted=1, chunks=chunks)
        await self._log.add(Settled(name, record.source, record.tenant, record.document_id, counts))
