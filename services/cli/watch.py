"""``mamba-search ingest --watch``: the index follows a folder until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Protocol

import platformdirs

from encoder.errors import InvalidInput, NotFound, Overloaded, StorageFull, TimedOut, Unavailable
from ingest.documents import Document
from ingest.index.interface import DocumentKey
from ingest.receipts import LoadError, Outcome, Receipt
from ingest.watching.folder import Look, Reading, WatchedFolder
from ingest.watching.hints import UNTOLD_S, check_installed, tell_of_changes
from ingest.watching.state import FolderState
from services.cli.refusals import Refusals
from services.cli.stages import showing
from services.cli.tally import Tally

FILES_AT_ONCE = 1000  # are read, and settled together: so many are read again where a service goes away meanwhile
DELETIONS_AT_ONCE = 256
SOON_S = 0.5  # before files that have just changed are looked at again
LOOKS_SHARE = 0.1  # of the time, at most: looking at a large folder takes seconds
RETRY_S_MAX = 60.0
_PASSING = (Unavailable, TimedOut, Overloaded, StorageFull)


class Target(Protocol):
    """Where documents go."""

    def ingest(self, items: Iterator[Document | LoadError]) -> AsyncGenerator[Receipt, None]:
        """Ingest documents; give a receipt for each."""

    async def delete(self, key: DocumentKey) -> None:
        """Take a document out; :class:`NotFound` where there is none."""


def check_watched(sources: list[str]) -> Path:
    """Give the folder to be followed, by its whole path; :class:`InvalidInput` where the sources are not one folder."""
    check_installed()
    if len(sources) != 1 or "://" in sources[0] or not Path(sources[0]).is_dir():
        raise InvalidInput("watch", f"--watch follows one folder of this machine, not {' '.join(sources)[:200]}.")
    return Path(sources[0]).resolve()


def state_path(folder: Path, where: Path | str) -> Path:
    """Name the file that notes what a folder has given to an index: that of a directory, or of a worker."""
    named = where.resolve() if isinstance(where, Path) else where
    digest = hashlib.sha256(f"{named}\0{folder}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return platformdirs.user_state_path("mamba-search", appauthor=False) / "watched" / f"{digest}.sqlite"


class Follower:
    """Keeps an index as a folder is."""

    def __init__(self, folder: WatchedFolder, target: Target, tally: Tally, refusals: Refusals) -> None:
        self._folder = folder
        self._target = target
        self._tally = tally
        self._refusals = refusals
        self._console = refusals.console
        self._started = time.monotonic()
        self._is_away = False

    async def follow(self) -> None:
        """Bring in what is there, then what changes, until cancelled. What is away for a time is waited for."""
        changed = asyncio.Event()
        hints = asyncio.create_task(tell_of_changes(self._folder.root, changed))
        try:
            async with showing(self._tally, self._console):
                look = await self._bring_up_to_date(changed)
            self._console.print(f"watching {self._folder.root}; Ctrl-C ends", markup=False, soft_wrap=True)
            while True:
                if look.is_waiting:
                    await asyncio.sleep(SOON_S)
                else:
                    await _wait(changed, UNTOLD_S)
                look = await self._bring_up_to_date(changed)
        finally:
            hints.cancel()
            await asyncio.gather(hints, return_exceptions=True)

    async def _bring_up_to_date(self, changed: asyncio.Event) -> Look:
        """Look and do what is to be done, as often as it takes."""
        failures = 0
        while True:
            changed.clear()
            began = time.monotonic()
            look = await asyncio.to_thread(self._folder.look, self._now())
            look_s = time.monotonic() - began
            self._tell_away(look)
            for error in look.errors:
                self._refusals.tell(Receipt("", error.source, Outcome.REJECTED, error=error.error))
            try:
                await self._catch_up(look)
            except _PASSING as error:
                self._tally.give_up()
                wait_s = min(2.0**failures, RETRY_S_MAX)
                self._console.print(f"{error} Trying again in {wait_s:.0f} s.", markup=False, soft_wrap=True)
                failures += 1
                await asyncio.sleep(wait_s)
            else:
                await asyncio.sleep(look_s / LOOKS_SHARE)
                return look

    async def _catch_up(self, look: Look) -> None:
        ingested, updated, rejected = self._tally.ingested, self._tally.updated, self._tally.rejected
        while reading := await asyncio.to_thread(self._folder.next_reading, FILES_AT_ONCE):
            await self._ingest(reading)
        deleted = 0
        while keys := await asyncio.to_thread(self._folder.deletions, look, self._now(), DELETIONS_AT_ONCE):
            for key in keys:
                deleted += await self._delete(key)
        counts = (
            (self._tally.ingested - ingested, "ingested"),
            (self._tally.updated - updated, "with new metadata"),
            (deleted, "deleted"),
            (self._tally.rejected - rejected, "refused"),
        )
        if told := ", ".join(f"{count:,} {what}" for count, what in counts if count):
            self._console.print(f"{time.strftime('%H:%M:%S')} {told}", markup=False, soft_wrap=True)

    async def _ingest(self, reading: Reading) -> None:
        items = self._tally.watch(self._folder.read(reading))
        async with aclosing(self._target.ingest(items)) as receipts:
            async for receipt in receipts:
                self._tally.count(receipt)
                if receipt.error:
                    self._refusals.tell(receipt)
                if isinstance(receipt.error, _PASSING):
                    self._folder.set_aside(reading, receipt.document_id)
        await asyncio.to_thread(self._folder.settle, reading, self._now())

    async def _delete(self, key: DocumentKey) -> int:
        try:
            await self._target.delete(key)
        except (NotFound, InvalidInput):
            count = 0  # somebody else has done it, or it was never ingested, as where its id is none
        else:
            count = 1
        self._tally.deleted += count
        self._folder.deleted(key)
        return count

    def _tell_away(self, look: Look) -> None:
        if look.is_away and not self._is_away:
            self._console.print(
                f"{self._folder.root} is not there, or empty in place of another; what it gave stays until it is back",
                markup=False,
                soft_wrap=True,
            )
        self._is_away = look.is_away

    def _now(self) -> float:
        return time.monotonic() - self._started


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


async def follow(
    folder: Path, where: Path | str, target: Target, tally: Tally, refusals: Refusals, *, prune: bool
) -> None:
    """Follow a folder until cancelled; ``where`` names the index."""
    with closing(FolderState(state_path(folder, where), f"{folder} (into {where})")) as state:
        await Follower(WatchedFolder(folder, state, prune=prune), target, tally, refusals).follow()
