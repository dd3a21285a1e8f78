"""What became of bundles, put together to parts that are finished. Knows nothing of how they came."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ingest.bulk.checkpoint import Checkpoint, PartOutcome, Totals
from ingest.bulk.documents import Bundle


@dataclass(slots=True)
class _Arriving:
    """A part of which bundles have come."""

    outcome: PartOutcome = field(default_factory=PartOutcome)
    numbers: set[int] = field(default_factory=set)
    count: int | None = None  # of all its bundles, once the last one has come


class Tally:
    """Puts together what comes in any order, and writes down what is finished."""

    def __init__(self, checkpoint: Checkpoint, report: Callable[[Totals, int], None]) -> None:
        """``report`` is told totals and finished parts; those that are finished already count."""
        finished = checkpoint.finished()
        self.totals = sum_totals(finished.values())
        self.failures: dict[str, str] = {}
        self._checkpoint = checkpoint
        self._parts = len(finished)
        self._report = report
        self._arriving: dict[int, _Arriving] = {}

    def add(self, arrived: tuple[Bundle, Totals]) -> None:
        """Take a bundle that is written, and what it came to."""
        bundle, totals = arrived
        part = self._arriving.setdefault(bundle.part, _Arriving())
        if bundle.number in part.numbers:
            return  # Ray has done it twice
        part.numbers.add(bundle.number)
        part.outcome.totals = part.outcome.totals.plus(totals)
        part.outcome.hashes += bundle.hashes
        part.outcome.dead += bundle.dead
        self.totals = self.totals.plus(totals)
        if bundle.failure:
            self.failures[self._checkpoint.plan.parts[bundle.part]] = bundle.failure
        if bundle.last:
            part.count = bundle.number + 1
        if len(part.numbers) == part.count:
            del self._arriving[bundle.part]
            if self._checkpoint.plan.parts[bundle.part] not in self.failures:
                self._checkpoint.finish(bundle.part, part.outcome)
                self._parts += 1
        self._report(self.totals, self._parts)


def sum_totals(found: Iterable[Totals]) -> Totals:
    """Add up the totals of parts."""
    total = Totals()
    for one in found:
        total = total.plus(one)
    return total
