"""One attempt at a job that ingests: its sources through the pipeline, each document with its one outcome.

A document that fails is a dead letter, whatever it does to the code that reads it; the rest goes on. What stops all
documents (an encoder that is away) is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from functools import partial

from encoder.errors import InvalidInput, MambaSearchError
from ingest.documents import Document
from ingest.jobs.dead_letters import Places, replayed_places
from ingest.jobs.job_log import JobLog
from ingest.jobs.reading import JobItems, name_of, place_of, read_items
from ingest.jobs.requests import JobKind
from ingest.jobs.states import COUNTED_AS, PASSING, Counts, Failure, Settled
from ingest.jobs.store import JobStore
from ingest.pipeline import Ingestor
from ingest.read_ahead import Item, reading_ahead
from ingest.receipts import Outcome, Receipt, Stage
from ingest.sources.policy import SourcePolicy

DEAD_LETTERS_MAX = 100_000  # of one job
ATTEMPTS_MAX = 3  # at one document

# Of an exception that nobody foresaw, the module that it came through tells the stage; the innermost counts.
_STAGES = {
    "ingest.preparing": Stage.CHUNK,
    "ingest.writing": Stage.ENCODE,
    "ingest.committing": Stage.COMMIT,
}


class TooManyFailures(InvalidInput):
    """So many documents of a job failed that it must be the job."""


class IngestRun:
    """An attempt at a job of the kinds INGEST and REPLAY."""

    def __init__(
        self,
        log: JobLog,
        store: JobStore,
        ingestor: Ingestor,
        policy: SourcePolicy,
        check_tenant: Callable[[str], None],
        unexpected: Callable[[Exception, str], MambaSearchError],
    ) -> None:
        """``check_tenant`` raises for one that there is not; ``unexpected`` logs, and makes what others may see."""
        self._log = log
        self._store = store
        self._ingestor = ingestor
        self._policy = policy
        self._check_tenant = check_tenant
        self._unexpected = unexpected
        self._places: Places | None = None

    @property
    def not_found(self) -> list[str] | None:
        """Of a replay that has come to its end, the places where nothing was."""
        return None if self._places is None else self._places.not_found

    async def run(self) -> None:
        """Ingest what the job is not done with. :class:`TooManyFailures`, and what stops all documents, is raised."""
        job = self._log.job
        if job.request.kind is JobKind.REPLAY:
            self._places = Places(await replayed_places(self._store.database, job.job_id))
        found = read_items(job.request, self._policy, self._places, self._check_tenant)
        async with reading_ahead(found) as ahead:
            items = JobItems(ahead, partial(self._store.settled, job.job_id))
            while not await self._ingest_all(items):
                for item in list(items.under_way):
                    await self._settle(item, await self._ingest_alone(item))
                    items.done()
        await self._log.flush()

    async def _ingest_all(self, items: JobItems) -> bool:
        """Ingest all items; False where one of those under way did what nobody foresaw."""
        try:
            async with aclosing(self._ingestor.ingest_all(items)) as receipts:
                async for receipt in receipts:
                    item = items.under_way[0]
                    passing = isinstance(receipt.error, PASSING)
                    await self._settle(item, await self._ingest_alone(item) if passing else (receipt, 1))
                    items.done()
        except MambaSearchError:
            raise
        except Exception as error:
            if not items.under_way:  # then it was no document
                raise
            self._unexpected(error, "a job's documents")
            return False
        return True

    async def _ingest_alone(self, item: Item) -> tuple[Receipt, int]:
        """Ingest one item, a few times where it fails for a passing reason; give its receipt, and how often."""
        receipt = None
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with aclosing(self._ingestor.ingest_all([item])) as receipts:
                    receipt = await anext(receipts)
            except MambaSearchError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever one document does, the rest goes on
                told = self._unexpected(error, "a job's document")
                source = place_of(item)
                return Receipt(item.document_id, source, Outcome.REJECTED, error=told, stage=_stage_of(error)), attempt
            if not isinstance(receipt.error, PASSING):
                break
        assert receipt is not None
        return receipt, attempt

    async def _settle(self, item: Item, outcome: tuple[Receipt, int]) -> None:
        receipt, attempts = outcome
        failure = None
        if receipt.error is not None:
            failure = Failure(receipt.stage or Stage.READ, receipt.error, attempts)
            if self._log.job.counts.failed >= DEAD_LETTERS_MAX:
                raise TooManyFailures(
                    "sources",
                    f"{DEAD_LETTERS_MAX} documents failed, the limit of a job (the last: {receipt.error}); correct the "
                    "sources and create it again.",
                )
        is_written = receipt.outcome is Outcome.INGESTED
        tenant, text = self._log.job.request.job_tenant, ""
        if isinstance(item, Document):
            tenant, text = item.tenant, item.text
        counts = Counts(
            **{COUNTED_AS[receipt.outcome]: 1},
            chunks=receipt.chunk_count if is_written else 0,
            tokens=receipt.token_count if is_written else 0,
            bytes_done=len(text.encode("utf-8", "surrogatepass")),
        )
        await self._log.add(Settled(name_of(item), place_of(item), tenant, item.document_id, counts, failure))


def _stage_of(error: Exception) -> Stage:
    stage, trace = Stage.READ, error.__traceback__
    while trace is not None:
        stage = _STAGES.get(trace.tb_frame.f_globals["__name__"], stage)
        trace = trace.tb_next
    return stage
