"""What the load test measures with: latencies counted from the right moment, refusals told from errors."""

import asyncio
import time

import pytest

from tests.benchmarks.load.generator import REFUSED, Answer, Load, closed_loop, open_loop


async def test_the_open_loop_times_from_the_moment_a_request_was_due() -> None:
    async def stalling(number: int) -> Answer:
        if number == 2:
            time.sleep(0.3)  # noqa: ASYNC251 - the whole process stands still, the load with it
        return Answer()

    load = await open_loop(stalling, rate=50, seconds=0.6)
    assert load.codes["OK"] == 30
    # Those due while it stood still waited, though each was answered at once when it was sent.
    assert sum(latency > 100 for latency in load.latencies_ms) >= 8


async def test_the_closed_loop_counts_what_began_after_the_warm_up() -> None:
    sent = 0

    async def ask(number: int) -> Answer:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.02)
        return Answer(stages_ms={"encode": 1.5})

    load = await closed_loop(ask, clients=3, seconds=0.3, warm_up_s=0.2)
    assert 20 <= load.codes["OK"] < sent
    assert load.throughput == pytest.approx(3 / 0.02, rel=0.4)
    assert load.percentile(50) >= 20
    assert load.figures()["stages_p50_ms"] == {"encode": 1.5}


async def test_a_client_that_is_refused_waits_as_it_was_told_and_no_error_is_counted() -> None:
    answers = iter([Answer(REFUSED, retry_after_s=0.1), Answer(), Answer("INTERNAL")])
    moments = []

    async def ask(number: int) -> Answer:
        moments.append(time.perf_counter())
        return next(answers, Answer())

    load = await closed_loop(ask, clients=1, seconds=0.15, warm_up_s=0)
    assert moments[1] - moments[0] >= 0.1
    assert (load.codes[REFUSED], load.errors) == (1, 1)


def test_stretches_of_one_load_are_joined() -> None:
    first, second = Load(seconds=1), Load(seconds=3)
    first.add(Answer(), 0.010)
    second.add(Answer(), 0.030)
    second.add(Answer("UNAVAILABLE"), 0.5)
    first.join(second)
    assert (first.seconds, first.latencies_ms, first.errors) == (4, [10, 30], 1)
    assert first.throughput == 0.5
