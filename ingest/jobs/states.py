"""What a job is, where it stands, and how far it is. Knows no database and no worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum

from encoder.errors import InvalidInput, MambaSearchError, Overloaded, TimedOut, Unavailable
from ingest.jobs.requests import JobRequest
from ingest.receipts import Outcome, Stage

# What a later attempt may not meet again.
PASSING = (Unavailable, TimedOut, Overloaded)


class JobState(Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"  # for what is away; tried again later
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of documents, by outcome, and how much was in them."""

    ingested: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    failed: int = 0
    deleted: int = 0
    chunks: int = 0
    tokens: int = 0
    bytes_done: int = 0

    @property
    def documents(self) -> int:
        """Those with an outcome of any kind."""
        return self.ingested + self.updated + self.unchanged + self.superseded + self.failed + self.deleted

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


# Where an outcome of ingestion is counted.
COUNTED_AS = {
    Outcome.INGESTED: "ingested",
    Outcome.UPDATED: "updated",
    Outcome.UNCHANGED: "unchanged",
    Outcome.SUPERSEDED: "superseded",
    Outcome.REJECTED: "failed",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a document became a dead letter."""

    stage: Stage
    error: MambaSearchError
    attempts: int = 1

    @property
    def field(self) -> str:
        """Say which field is at fault; empty where none is."""
        return self.error.field if isinstance(self.error, InvalidInput) else ""


@dataclass(frozen=True, slots=True)
class Settled:
    """One document that a job is done with."""

    item: bytes  # names it among all of the job, whoever reads it and however often
    place: str  # where it was read
    tenant: str
    document_id: str  # empty where it is not known
    counts: Counts
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as it stands. Times are seconds since 1970; 0 where there was none yet."""

    job_id: str
    request_id: str
    request: JobRequest
    state: JobState
    reason: str
    failed_attempts: int  # in a row, without progress
    cancel_requested: bool
    created_at: float
    started_at: float
    ended_at: float
    next_attempt_at: float  # where it waits
    active_s: float  # that somebody worked on it
    bytes_total: int | None
    counts: Counts

    @property
    def tokens_per_s(self) -> float:
        """Give the mean speed; 0 at the beginning."""
        return self.counts.tokens / self.active_s if self.active_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Guess how long it will take; None where nothing tells."""
        if self.bytes_total is None or self.state.is_final or not self.counts.bytes_done:
            return None
        return self.active_s * max(self.bytes_total - self.counts.bytes_done, 0) / self.counts.bytes_done


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs there are, of all tenants."""

    by_state: Mapping[JobState, int]  # every state
    oldest_queued_s: float  # how long the oldest has waited to be begun; 0 where none waits
    dead_letters: int
