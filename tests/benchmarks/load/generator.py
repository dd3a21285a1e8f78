"""Load on a service, and what it answers: clients in a closed loop, or requests at a fixed rate in an open one.

In the closed loop each client asks again as soon as it is answered. In the open loop requests are due at fixed moments,
and each is timed from the moment it was due, however late it could be sent: a service that stalls cannot hide by
holding the load back (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

IN_FLIGHT_MAX = 1000  # of an open loop; what is due beyond that is counted as not sent
NOT_SENT = "NOT_SENT"
OK = "OK"
REFUSED = "REFUSED"  # honestly: too busy, with the time after which to try again


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    code: str = OK
    retry_after_s: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)  # what the service says of its time


Ask = Callable[[int], Awaitable[Answer]]  # takes the request's number


@dataclass(slots=True)
class Load:
    """What was measured in one stretch."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)  # of those that were answered
    codes: Counter[str] = field(default_factory=Counter)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, answer: Answer, latency_s: float) -> None:
        """Count an answer."""
        self.codes[answer.code] += 1
        if answer.code == OK:
            self.latencies_ms.append(latency_s * 1000)
            for stage, milliseconds in answer.stages_ms.items():
                self.stages_ms.setdefault(stage, []).append(milliseconds)

    def join(self, other: Load) -> None:
        """Add another stretch of the same load."""
        self.seconds += other.seconds
        self.latencies_ms += other.latencies_ms
        self.codes += other.codes
        for stage, values in other.stages_ms.items():
            self.stages_ms.setdefault(stage, []).extend(values)

    def percentile(self, percent: float) -> float:
        """Give a percentile of the latency in milliseconds; not a number where nothing was answered."""
        return float(np.percentile(self.latencies_ms, percent)) if self.latencies_ms else float("nan")

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return self.codes[OK] / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> int:
        """Requests that were neither answered nor refused honestly."""
        return self.codes.total() - self.codes[OK] - self.codes[REFUSED]

    def figures(self) -> dict[str, object]:
        """Give what is written down of it."""
        return {
            "seconds": round(self.seconds, 1),
            "answers": self.codes[OK],
            "throughput": round(self.throughput, 1),
            **{f"p{percent:g}": round(self.percentile(percent), 2) for percent in (50, 95, 99)},
            "codes": dict(self.codes),
            "stages_p50_ms": {stage: round(float(np.median(each)), 2) for stage, each in self.stages_ms.items()},
        }


async def closed_loop(ask: Ask, clients: int, seconds: float, *, warm_up_s: float = 1.0) -> Load:
    """Have ``clients`` ask one after another for ``seconds``; what began in the time before is not counted."""
    found = Load()
    begins = time.perf_counter() + warm_up_s
    ends = begins + seconds
    last = begins

    async def client(number: int) -> None:
        nonlocal last
        while (sent := time.perf_counter()) < ends:
            answer = await ask(number)
            number += clients
            now = time.perf_counter()
            if sent >= begins:
                found.add(answer, now - sent)
                last = max(last, now)
            if answer.retry_after_s:
                await asyncio.sleep(answer.retry_after_s)

    await asyncio.gather(*(client(number) for number in range(clients)))
    found.seconds = max(last, ends) - begins
    return found


async def open_loop(ask: Ask, rate: float, seconds: float) -> Load:
    """Ask ``rate`` times a second for ``seconds``, whatever becomes of the requests before."""
    found = Load()
    running: set[asyncio.Task[None]] = set()
    begins = time.perf_counter()

    async def request(number: int, due: float) -> None:
        answer = await ask(number)
        found.add(answer, time.perf_counter() - due)

    for number in range(round(rate * seconds)):
        due = begins + number / rate
        await asyncio.sleep(due - time.perf_counter())
        if len(running) >= IN_FLIGHT_MAX:
            found.codes[NOT_SENT] += 1
            continue
        task = asyncio.create_task(request(number, due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    found.seconds = time.perf_counter() - begins
    return found
