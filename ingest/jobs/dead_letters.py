"""What jobs could not ingest, and its replay: a letter that succeeds is no more. Knows no source and no pipeline.

What is done here with a connection is part of a transaction of :mod:`ingest.jobs.store`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import sqlalchemy as sa

from encoder.errors import NotFound
from encoder.grpc_errors import code_of
from ingest.database import Database
from ingest.jobs.requests import JobRequest
from ingest.jobs.states import Settled
from ingest.jobs.tables import dead_letters
from ingest.receipts import Stage

REASON_CHARS_MAX = 2000
PLACE_CHARS_MAX = 4200  # a source, and the number of a row
_GONE = "it is no longer there: nothing was read in its place. Correct the source, or let it be."


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A document, or what should be one, that a job could not ingest. Times are seconds since 1970."""

    letter_id: str
    job_id: str
    tenant: str
    place: str  # where it was read
    document_id: str  # empty where it was not known
    stage: Stage
    reason: str
    field: str  # at fault; empty where none is
    code: int  # of gRPC
    attempts: int
    first_failed_at: float
    last_failed_at: float
    replay_job_id: str  # of the job that replays it; empty where none does


class Places:
    """Where letters were read: files, rows of files, folders, whole sources; and what of it has been found again."""

    def __init__(self, places: Iterable[str]) -> None:
        self._places = set(places)
        self._files = self._places | {place.rpartition(":")[0] for place in self._places}
        self._found: set[str] = set()

    @property
    def not_found(self) -> list[str]:
        """The places at which nothing was."""
        return sorted(self._places - self._found)

    def may_hold(self, file: str) -> bool:
        """Say whether a file is one of the places, in one of them, or has one in it."""
        return storable(file) in self._files or bool(self._around(storable(file)))

    def find(self, place: str) -> bool:
        """Say whether a document's place is one of them, or in one of them; if so, note it."""
        around = self._around(storable(place))
        self._found |= around
        return bool(around)

    def _around(self, place: str) -> set[str]:
        within = (place, place.rpartition(":")[0], *(str(one) for one in PurePosixPath(place).parents))
        return {one for one in within if one in self._places}


def storable(text: str, chars_max: int = PLACE_CHARS_MAX) -> str:
    """Make a text that every database takes: names of files may hold bytes that are no text, and bad rows anything."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:chars_max]


def note_failures(connection: sa.Connection, job_id: str, failed: Sequence[Settled], now: float) -> None:
    """Write letters; one that this job replays is written again, so that it stays its first job's."""
    for settled in failed:
        failure = settled.failure
        assert failure is not None
        said = {
            "document_id": storable(settled.document_id),
            "stage": failure.stage.value,
            "reason": storable(str(failure.error), REASON_CHARS_MAX),
            "field": storable(failure.field),
            "code": code_of(failure.error).value[0],
            "last_failed_at": now,
        }
        replayed = connection.execute(
            dead_letters.update()
            .where(dead_letters.c.replay_job_id == job_id, dead_letters.c.place == storable(settled.place))
            .values(**said, attempts=dead_letters.c.attempts + failure.attempts, replay_job_id="")
        )
        if replayed.rowcount:
            continue
        row = {
            "job_id": job_id,
            "item": settled.item,
            "letter_id": uuid.uuid4().hex,
            "tenant": storable(settled.tenant),
            "place": storable(settled.place),
            "attempts": failure.attempts,
            "first_failed_at": now,
        }
        connection.execute(dead_letters.insert().values(**row, **said))


def resolve(connection: sa.Connection, job_id: str, done: Sequence[Settled]) -> None:
    """Forget letters of just these places that this job replays."""
    places = [storable(settled.place) for settled in done]
    connection.execute(
        dead_letters.delete().where(dead_letters.c.replay_job_id == job_id, dead_letters.c.place.in_(places))
    )


def begin_replay(connection: sa.Connection, request: JobRequest, job_id: str) -> None:
    """Give letters to a job that replays them; :class:`NotFound` where one of them, or any, is not to be had."""
    chosen = [dead_letters.c.job_id == request.replays, dead_letters.c.replay_job_id == ""]
    if request.letters:
        chosen.append(dead_letters.c.letter_id.in_(request.letters))
    given = connection.execute(dead_letters.update().where(*chosen).values(replay_job_id=job_id)).rowcount
    if not given:
        raise NotFound(f"Job {request.replays} has no such dead letters, or another job replays them already.")
    if request.letters and given < len(set(request.letters)):
        raise NotFound(
            f"{len(set(request.letters)) - given} of the dead letters named are not of job {request.replays}, have "
            "been resolved, or are replayed already; list them again."
        )


def end_replay(connection: sa.Connection, job_id: str, not_found: Sequence[str] | None, now: float) -> None:
    """Settle the letters that are left to a replay: folders and the like, of which all that was in them was read.

    Those where nothing was found have failed again. None: the job came to no end, and all of them wait for another.
    """
    ours = dead_letters.c.replay_job_id == job_id
    if not_found is not None:
        again = {"attempts": dead_letters.c.attempts + 1, "last_failed_at": now, "replay_job_id": ""}
        for place in not_found:
            gone = {"reason": storable(f"{place}: {_GONE}", REASON_CHARS_MAX), **again}
            connection.execute(dead_letters.update().where(ours, dead_letters.c.place == place).values(**gone))
        connection.execute(dead_letters.delete().where(ours))
    connection.execute(dead_letters.update().where(ours).values(replay_job_id=""))


async def replayed_places(database: Database, job_id: str) -> list[str]:
    """Name the places of the letters that a job has yet to replay."""
    rows = await database.read(sa.select(dead_letters.c.place).where(dead_letters.c.replay_job_id == job_id))
    return [row.place for row in rows]


async def list_letters(
    database: Database, *, job_id: str, tenant: str, after: tuple[float, str] | None, limit: int
) -> list[DeadLetter]:
    """Read letters, the oldest first, those after a time and an id; of one job or one tenant where one is named."""
    order = (dead_letters.c.first_failed_at, dead_letters.c.letter_id)
    chosen = []
    if job_id:
        chosen.append(dead_letters.c.job_id == job_id)
    if tenant:
        chosen.append(dead_letters.c.tenant == tenant)
    if after:
        chosen.append(sa.tuple_(*order) > sa.tuple_(*map(sa.literal, after)))
    rows = await database.read(sa.select(dead_letters).where(*chosen).order_by(*order).limit(limit))
    return [_letter(row) for row in rows]


def _letter(row: sa.Row[tuple[object, ...]]) -> DeadLetter:
    values = dict(row._mapping)
    values["stage"] = Stage(values["stage"])
    del values["item"]
    return DeadLetter(**values)
