"""Kills parts of a node while documents are ingested, and looks whether anything was lost, doubled or left behind.

    python -m tests.benchmarks.crashes.killing --kills 200 --documents 500 --seed 1

Half of the kills are of a worker at the point of ``failpoints`` that was hit least so far; the others are of any part,
or of the whole node, at points and moments drawn at random. Between them a worker is stopped for longer than its lease
and then goes on, while the other one takes over. Clients send versions of documents to both all the while, and again
what has no receipt. The last line is the figure; the exit code is 1 where anything is wrong, or a point was never hit.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.crashes.checking import SETTLE_TIMEOUT_S, check
from tests.benchmarks.crashes.client import send
from tests.benchmarks.crashes.failpoints import POINTS
from tests.benchmarks.crashes.node import PARTS, WORKERS, Node
from tests.benchmarks.crashes.source import STREAM_DOCUMENTS, Source
from tests.benchmarks.crashes.worker import LEASE_S

POINT_TIMEOUT_S = 3.0  # for a point to be reached, before the kill comes at whatever point it is
RARE_POINT_TIMEOUT_S = 15.0  # where only points are left that are seldom reached
STOP_EVERY = 15  # kills
# Where a worker stops that is to be taken over: it has written, and is about to make it visible.
STOP_POINTS = ("upsert_chunks begins", "upsert_chunks ended", "count_chunks ended", "commit_record begins")
STOPPED_S = 2 * LEASE_S
MORE_KILLS_MAX = 3 * len(POINTS)  # to hit points that were never reached


@dataclass(slots=True)
class Killer:
    """Kills and stops, and counts where."""

    node: Node
    random: random.Random
    hits: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)  # by victim
    stops: int = 0
    _order: dict[str, float] = field(default_factory=dict)  # of points that were hit equally often
    _started: dict[str, float] = field(default_factory=dict)  # when parts were started again

    async def kill_next(self, number: int) -> str:
        """Kill as planned; say what and where."""
        if number % 2 == 0:
            worker = self._oldest()
            return await self._kill((worker,), worker, self._least_hit(), POINT_TIMEOUT_S)
        victims = self.random.choice([(WORKERS[0],), (WORKERS[1],), WORKERS, ("index",), ("encoder",), PARTS])
        return await self._kill(victims, self._oldest(), self.random.choice([None, *POINTS]), POINT_TIMEOUT_S)

    async def kill_at_rare_point(self) -> str:
        """Kill at a point that was hit least."""
        worker = self._oldest()
        return await self._kill((worker,), worker, self._least_hit(), RARE_POINT_TIMEOUT_S)

    async def _kill(self, victims: tuple[str, ...], worker: str, point: str | None, timeout_s: float) -> str:
        """Kill parts when a worker reaches a point, or at a random moment; start them again."""
        if point is None:
            await asyncio.sleep(self.random.random() * 0.5)
        is_hit = point is not None and await self.node.stop_at(worker, point, timeout_s)
        for part in victims:
            self.node.kill(part)
            self.kills[part] += 1
        self.node.go_on(worker)
        await asyncio.sleep(self.random.random() * 0.3)
        for part in victims:
            self.node.start(part)
            self._started[part] = time.monotonic()
        if point and is_hit:
            self.hits[point] += 1
        elif point:
            self._order[point] = self.random.random() + 1  # others first
        return f"{' + '.join(victims)} killed {f'at {point!r} of the {worker}' if is_hit else 'at a random moment'}"

    async def stop(self) -> str:
        """Stop a worker until the other one has taken over, and let it go on."""
        worker, point = self._oldest(), STOP_POINTS[self.stops % len(STOP_POINTS)]
        self.stops += 1
        is_hit = await self.node.stop_at(worker, point, POINT_TIMEOUT_S)
        if is_hit:
            await asyncio.sleep(STOPPED_S)
        self.node.go_on(worker)
        return f"{worker} {f'stopped at {point!r} for {STOPPED_S:.0f} s' if is_hit else f'never came to {point!r}'}"

    def _oldest(self) -> str:
        """Name the worker that has run for longer: the other one may still be starting."""
        return min(WORKERS, key=lambda worker: self._started.get(worker, 0.0))

    def _least_hit(self) -> str:
        """Choose among the points that were hit least."""
        return min(POINTS, key=lambda point: (self.hits[point], self._order.setdefault(point, self.random.random())))

    def never_hit(self) -> list[str]:
        """Name the points where nothing was killed."""
        return [point for point in POINTS if not self.hits[point]]


async def run(kills: int, documents: int, seed: int, folder: Path, *, all_points: bool = False) -> list[str]:
    """Kill as planned, with ``all_points`` until each was hit; let everything settle, and say what is wrong."""
    source = Source(documents, random.Random(seed + 1))
    node = Node(folder)
    killer = Killer(node, random.Random(seed))
    done = asyncio.Event()
    try:
        for part in PARTS:
            node.start(part)
        targets = [node.target(worker) for worker in WORKERS]
        sending = [asyncio.create_task(send(source, share, targets, done)) for share in range(len(targets))]
        await _until(lambda: len(source.acknowledged) >= min(documents, STREAM_DOCUMENTS), "receipt for each at first")
        number = 0
        while number < kills or (all_points and killer.never_hit() and number < kills + MORE_KILLS_MAX):
            acknowledged = source.receipts.total()
            if number % STOP_EVERY == STOP_EVERY - 1:
                print(f"   {await killer.stop()}; receipts {source.receipts.total():,}", flush=True)
            where = await (killer.kill_next(number) if number < kills else killer.kill_at_rare_point())
            number += 1
            print(f"{number}: {where}; receipts {source.receipts.total():,}", flush=True)
            # Some work between kills, or it would all be starting again.
            await _until(lambda: source.receipts.total() > acknowledged, "receipt after a kill")  # noqa: B023
        done.set()
        await asyncio.wait_for(asyncio.gather(*sending), SETTLE_TIMEOUT_S)
        problems = [f"the {part} ended by itself (exit code {code})" for part, code in node.exited().items()]
        problems += await check(source, node.target("index"))
    finally:
        node.close()
    for point in POINTS:
        print(f"{killer.hits[point]:4d} kills at {point}")
    print(f"kills {dict(killer.kills)}; stops {killer.stops}, documents taken over {source.fenced}")
    print(f"receipts {dict(source.receipts)}")
    if all_points:
        problems += [f"nothing was killed at {point!r}" for point in killer.never_hit()]
        if killer.stops and not source.fenced:
            problems.append("no worker that was stopped heard that it had been taken over")
    return problems


async def _until(reached: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + SETTLE_TIMEOUT_S
    while not reached():
        if time.monotonic() > ends:
            raise TimeoutError(f"no {what} within {SETTLE_TIMEOUT_S:.0f} s")
        await asyncio.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crashes-") as folder:
        problems = asyncio.run(run(given.kills, given.documents, given.seed, Path(folder), all_points=True))
    for problem in problems[:20]:
        print(problem)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{'FAIL' if problems else 'PASS'}: {given.kills} kills over {given.documents} documents in {minutes:.1f} min, "
        f"{len(POINTS)} points, {len(problems)} problems (bar 0)"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
