"""Jobs in the database: created once, claimed under a lease, counted without doubles, ended once.

A job is its owner's while the owner renews its lease. Everything that an owner writes is written in one transaction
that first makes sure that it still is the owner, so that one that was only slow disturbs no other. Reads no source.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from encoder.errors import InvalidInput, NotFound, Overloaded
from ingest.database import Database
from ingest.jobs.dead_letters import begin_replay, end_replay, note_failures, resolve
from ingest.jobs.requests import JobKind, JobRequest
from ingest.jobs.states import Counts, Job, JobCounts, JobState, Settled
from ingest.jobs.tables import COUNTS, dead_letters, jobs, settled_items
from ingest.journal import LEASE_S

UNFINISHED_MAX = 1000
KEPT_S = 30 * 86_400.0
_RETRY_AFTER_S = 60.0
_OPEN = tuple(state.value for state in JobState if not state.is_final)


class LeaseLost(Exception):
    """The job is another's by now, or has ended: whoever has it goes on."""


class JobStore:
    """One process's view of all jobs. Every method may raise :class:`encoder.errors.JournalUnavailable`."""

    def __init__(self, database: Database, *, lease_s: float = LEASE_S, now: Callable[[], float] = time.time) -> None:
        self.database = database
        self._lease_s = lease_s
        self._now = now
        self._owner = uuid.uuid4().hex

    async def create(self, request_id: str, request: JobRequest) -> Job:
        """Make a job, or give the one that this request made before. Each tenant names its requests on its own.

        :class:`InvalidInput` where another request had that id, :class:`Overloaded` where too many jobs have not ended,
        :class:`NotFound` where there is nothing to replay.
        """
        said = request.to_json()
        # Else one tenant could learn of another's requests by naming its own like them.
        own_id = f"{request.tenant}/{request_id}"

        def write(connection: sa.Connection) -> Job:
            job_id = uuid.uuid4().hex
            row: dict[str, object] = {
                "job_id": job_id,
                "request_id": own_id,
                "request": said,
                "tenant": request.job_tenant,
            }
            row |= {"state": JobState.QUEUED.value, "created_at": self._now()}
            # Of two that come at once, the second waits here until the first is there to be read.
            made = self.database.upsert(jobs).values(row).on_conflict_do_nothing(index_elements=["request_id"])
            if connection.execute(made.returning(jobs.c.job_id)).first() is None:
                found = connection.execute(sa.select(jobs).where(jobs.c.request_id == own_id)).one()
                if found.request != said:
                    message = f"request_id {request_id!r} was another request's, which made job {found.job_id}."
                    raise InvalidInput("request_id", f"{message} Give a new one.")
                return _job(found)
            self._forget(connection)
            count = connection.scalar(sa.select(sa.func.count()).where(jobs.c.state.in_(_OPEN))) or 0
            if count > UNFINISHED_MAX:
                message = f"{UNFINISHED_MAX} jobs have not ended, which is the limit; try again later."
                raise Overloaded(message, _RETRY_AFTER_S)
            if request.kind is JobKind.REPLAY:
                begin_replay(connection, request, job_id)
            return _read(connection, job_id)

        return await self.database.write(write)

    async def get(self, job_id: str) -> Job:
        """Read a job; :class:`NotFound` where there is none."""
        return await self.database.write(lambda connection: _read(connection, job_id))

    async def list_jobs(
        self, *, tenant: str, state: JobState | None, after: tuple[float, str] | None, limit: int
    ) -> list[Job]:
        """Read jobs, the newest first, those after a time and an id; of one tenant, or in one state, where named."""
        order = (jobs.c.created_at, jobs.c.job_id)
        chosen = []
        if tenant:
            chosen.append(jobs.c.tenant == tenant)
        if state:
            chosen.append(jobs.c.state == state.value)
        if after:
            chosen.append(sa.tuple_(*order) < sa.tuple_(*map(sa.literal, after)))
        statement = sa.select(jobs).where(*chosen).order_by(*(column.desc() for column in order)).limit(limit)
        return [_job(row) for row in await self.database.read(statement)]

    async def count(self) -> JobCounts:
        """Count jobs and dead letters, of all tenants and workers."""
        number, oldest = sa.func.count().label("number"), sa.func.min(jobs.c.created_at).label("oldest")
        states = sa.select(jobs.c.state, number, oldest).group_by(jobs.c.state)
        found = {row.state: row for row in await self.database.read(states)}
        letters = await self.database.read(sa.select(number).select_from(dead_letters))
        queued = found.get(JobState.QUEUED.value)
        return JobCounts(
            {state: found[state.value].number if state.value in found else 0 for state in JobState},
            oldest_queued_s=max(self._now() - queued.oldest, 0.0) if queued else 0.0,
            dead_letters=letters[0].number,
        )

    async def cancel(self, job_id: str) -> Job:
        """End a job that nobody works on; have its owner end it where somebody does."""

        def write(connection: sa.Connection) -> Job:
            job = _read(connection, job_id)
            if job.state is JobState.RUNNING:
                connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(cancel_requested=True))
            elif not job.state.is_final:
                self._end(connection, job, JobState.CANCELLED, "", None)
            return _read(connection, job_id)

        return await self.database.write(write)

    async def claim(self, at_work: Collection[str] = ()) -> Job | None:
        """Take the oldest job that is to be worked on, those of owners that have died included; None where none is.

        ``at_work`` names those that this process works on: where their leases run out it is alive all the same.
        """

        def write(connection: sa.Connection) -> Job | None:
            now = self._now()
            due = sa.or_(
                jobs.c.state == JobState.QUEUED.value,
                sa.and_(jobs.c.state == JobState.WAITING.value, jobs.c.next_attempt_at <= now),
                sa.and_(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_until < now),
            )
            oldest = (
                sa.select(jobs)
                .where(due, jobs.c.job_id.not_in(at_work))
                .order_by(jobs.c.created_at, jobs.c.job_id)
                .limit(1)
            )
            row = connection.execute(oldest.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            values = {
                "state": JobState.RUNNING.value,
                "owner": self._owner,
                "lease_until": now + self._lease_s,
                "started_at": row.started_at or now,
                # A job at which one worker after the other dies is given up at last.
                "failed_attempts": row.failed_attempts + (row.state == JobState.RUNNING.value),
            }
            connection.execute(jobs.update().where(jobs.c.job_id == row.job_id).values(**values))
            return _read(connection, row.job_id)

        return await self.database.write(write)

    async def settled(self, job_id: str, items: Sequence[bytes]) -> set[bytes]:
        """Say with which of these items a job is done."""
        statement = sa.select(settled_items.c.item).where(
            settled_items.c.job_id == job_id, settled_items.c.item.in_(items)
        )
        return {bytes(row.item) for row in await self.database.read(statement)}

    async def record(self, job: Job, done: Sequence[Settled], active_s: float) -> Job:
        """Renew the lease, and note what the job is done with, each item once; give the job as it is now.

        :class:`LeaseLost` where it is another's: nothing is noted then.
        """

        def write(connection: sa.Connection) -> Job:
            self._hold(connection, job.job_id)
            new = self._settle(connection, job.job_id, done)
            note_failures(connection, job.job_id, [one for one in new if one.failure], self._now())
            if job.request.kind is JobKind.REPLAY and new:
                resolve(connection, job.job_id, [one for one in new if not one.failure])
            counts = sum((one.counts for one in new), Counts())
            values: dict[str, Any] = {name: jobs.c[name] + getattr(counts, name) for name in COUNTS}
            values["active_s"] = jobs.c.active_s + active_s
            if new:
                values["failed_attempts"] = 0
            connection.execute(jobs.update().where(jobs.c.job_id == job.job_id).values(**values))
            return _read(connection, job.job_id)

        return await self.database.write(write)

    async def note_size(self, job: Job, bytes_total: int) -> None:
        """Note how large the sources of a job are."""
        await self._as_owner(job, {"bytes_total": bytes_total})

    async def wait(self, job: Job, reason: str, delay_s: float) -> None:
        """Give a job back until what it needs may be there again."""
        values = {
            "state": JobState.WAITING.value,
            "reason": reason,
            "failed_attempts": jobs.c.failed_attempts + 1,
            "next_attempt_at": self._now() + delay_s,
        }
        await self._as_owner(job, values)

    async def release(self, job: Job) -> None:
        """Give a job back, for anybody to go on with."""
        await self._as_owner(job, {"state": JobState.QUEUED.value})

    async def finish(
        self, job: Job, state: JobState, reason: str = "", *, not_found: Sequence[str] | None = None
    ) -> None:
        """End a job; ``not_found`` are the places where a replay that came to its end found nothing."""

        def write(connection: sa.Connection) -> None:
            self._hold(connection, job.job_id)
            self._end(connection, job, state, reason, not_found)

        await self.database.write(write)

    async def _as_owner(self, job: Job, values: dict[str, Any]) -> None:
        def write(connection: sa.Connection) -> None:
            self._hold(connection, job.job_id)
            connection.execute(jobs.update().where(jobs.c.job_id == job.job_id).values(**values))

        await self.database.write(write)

    def _hold(self, connection: sa.Connection, job_id: str) -> None:
        ours = (jobs.c.job_id == job_id, jobs.c.owner == self._owner, jobs.c.state == JobState.RUNNING.value)
        renewed = jobs.update().where(*ours).values(lease_until=self._now() + self._lease_s, reason="")
        if not connection.execute(renewed).rowcount:
            raise LeaseLost(job_id)

    def _settle(self, connection: sa.Connection, job_id: str, done: Sequence[Settled]) -> list[Settled]:
        """Note items; give those that were not noted before."""
        if not done:
            return []
        rows = [{"job_id": job_id, "item": one.item} for one in done]
        noted = self.database.upsert(settled_items).values(rows).on_conflict_do_nothing()
        unseen = {bytes(item) for item in connection.scalars(noted.returning(settled_items.c.item))}
        new = []
        for one in done:
            if one.item in unseen:
                unseen.discard(one.item)
                new.append(one)
        return new

    def _end(
        self, connection: sa.Connection, job: Job, state: JobState, reason: str, not_found: Sequence[str] | None
    ) -> None:
        now = self._now()
        values = {"state": state.value, "reason": reason, "ended_at": now, "cancel_requested": False}
        connection.execute(jobs.update().where(jobs.c.job_id == job.job_id).values(**values))
        connection.execute(settled_items.delete().where(settled_items.c.job_id == job.job_id))
        if job.request.kind is JobKind.REPLAY:
            end_replay(connection, job.job_id, not_found, now)

    def _forget(self, connection: sa.Connection) -> None:
        """Forget jobs that ended long ago and have no letter."""
        letters = sa.select(dead_letters.c.job_id).where(dead_letters.c.job_id == jobs.c.job_id)
        old = (jobs.c.state.not_in(_OPEN), jobs.c.ended_at < self._now() - KEPT_S, ~letters.exists())
        connection.execute(jobs.delete().where(*old))


def no_such_job(job_id: str) -> NotFound:
    """Say that there is no such job: also to those who may not know that there is."""
    return NotFound(f"There is no job {job_id[:80]!r}.")


def _read(connection: sa.Connection, job_id: str) -> Job:
    row = connection.execute(sa.select(jobs).where(jobs.c.job_id == job_id)).first()
    if row is None:
        raise no_such_job(job_id)
    return _job(row)


def _job(row: sa.Row[Any]) -> Job:
    values = dict(row._mapping)
    values["request"] = JobRequest.from_json(values["request"])
    values["state"] = JobState(values["state"])
    values["request_id"] = values["request_id"].rpartition("/")[2]
    values["counts"] = Counts(*(values[name] for name in COUNTS))
    return Job(**{one.name: values[one.name] for one in fields(Job)})
