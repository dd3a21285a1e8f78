"""How far a bulk load is, in a folder: what it is to do, and each part that is finished. It outlives the process.

``plan.json`` says what is loaded into what. A finished part has ``parts/N.keys`` (hashes of its documents' keys),
``parts/N.dead.jsonl`` and, written last, ``parts/N.json``; a part without the last one is read again.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Self

import pydantic

from encoder.errors import InUse, InvalidInput, StorageFull
from ingest.bulk.documents import DeadLetter
from ingest.bulk.parts import Part
from ingest.index.data_directory import replace_file
from ingest.seen import HASH_BYTES

PLAN_FILE = "plan.json"
LOCK_FILE = "lock"
DEAD_LETTERS_FILE = "dead-letters.jsonl"


class Plan(pydantic.BaseModel):
    """What a load is to do; a load that goes on must be told the same."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    collection: str
    fingerprint: str
    dimension: int
    parts: tuple[str, ...]  # their names


class Totals(pydantic.BaseModel):
    """What became of rows: of a part's, or of all."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    documents: int = 0  # in the index
    chunks: int = 0
    tokens: int = 0
    dead: int = 0

    def plus(self, other: Totals) -> Totals:
        """Add up."""
        return Totals(**{name: value + getattr(other, name) for name, value in self})


@dataclass(slots=True)
class PartOutcome:
    """What became of a part, as far as it is known."""

    totals: Totals = field(default_factory=Totals)
    hashes: list[bytes] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


class Checkpoint:
    """The folder, held by this process alone."""

    def __init__(self, folder: Path, lock: IO[str], plan: Plan) -> None:
        self.plan = plan
        self._folder = folder
        self._lock = lock
        self._parts = folder / "parts"

    @classmethod
    def open(cls, folder: Path, plan: Plan) -> tuple[Self, bool]:
        """Begin a load, or go on with the one that was begun with this plan; say whether it is a new one.

        :class:`InvalidInput` where another load was begun in this folder; :class:`InUse` where it still runs.
        """
        try:
            (folder / "parts").mkdir(parents=True, exist_ok=True)
            lock = (folder / LOCK_FILE).open("w", encoding="utf-8")
        except OSError as error:
            raise InvalidInput("checkpoint", f"checkpoint {folder} cannot be written ({error.strerror}).") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise InUse(f"A load with checkpoint {folder} is running; wait for it, or give another folder.") from None
        file = folder / PLAN_FILE
        if not file.exists():
            return cls(folder, lock, plan), True
        try:
            found = Plan.model_validate_json(file.read_text(encoding="utf-8"))
        except ValueError:
            lock.close()
            raise InvalidInput("checkpoint", f"{file} is no plan of a load; give another folder.") from None
        differing = [name for name, value in found if value != getattr(plan, name)]
        if differing:
            lock.close()
            raise InvalidInput(
                "checkpoint",
                f"checkpoint {folder} is of a load with other {', '.join(differing)}; give the same sources, of "
                "the same sizes, and options to go on with it, or another folder to begin anew.",
            )
        return cls(folder, lock, found), False

    def begin(self) -> None:
        """Write the plan down: from now on a load may go on with it."""
        self._write(self._folder / PLAN_FILE, self.plan.model_dump_json(indent=1).encode())

    def finished(self) -> dict[int, Totals]:
        """Give the parts that are finished, by their numbers."""
        files = sorted(self._parts.glob("*.json"))
        return {int(file.stem): Totals.model_validate_json(file.read_text(encoding="utf-8")) for file in files}

    def hashes(self) -> Iterator[bytes]:
        """Give the hashes of the keys of all finished parts' documents."""
        for number in self.finished():
            data = (self._parts / f"{number}.keys").read_bytes()
            for at in range(0, len(data), HASH_BYTES):
                yield data[at : at + HASH_BYTES]

    def finish(self, number: int, outcome: PartOutcome) -> None:
        """Note that all of a part is in the index, or among its dead letters."""
        dead = "".join(json.dumps(asdict(letter), ensure_ascii=False) + "\n" for letter in outcome.dead)
        self._write(self._parts / f"{number}.keys", b"".join(outcome.hashes))
        self._write(self._parts / f"{number}.dead.jsonl", dead.encode("utf-8", "replace"))
        self._write(self._parts / f"{number}.json", outcome.totals.model_dump_json().encode())

    def gather_dead_letters(self) -> Path:
        """Write the dead letters of all finished parts into one file, in the order of parts."""
        target = self._folder / DEAD_LETTERS_FILE
        draft = target.with_suffix(".new")
        with draft.open("wb") as file:
            for number in sorted(self.finished()):
                file.write((self._parts / f"{number}.dead.jsonl").read_bytes())
        draft.replace(target)
        return target

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def _write(self, path: Path, data: bytes) -> None:
        """Replace a file, at once or not at all."""
        try:
            replace_file(path, data)
        except OSError as error:
            raise StorageFull(f"{path} cannot be written ({error.strerror}); the load can go on later.") from error


def make_plan(collection: str, fingerprint: str, dimension: int, parts: Sequence[Part]) -> Plan:
    """Say what a load is to do."""
    names = tuple(part.name for part in parts)
    return Plan(collection=collection, fingerprint=fingerprint, dimension=dimension, parts=names)
