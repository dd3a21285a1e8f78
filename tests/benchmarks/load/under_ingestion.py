"""Searches while ingestion runs at full speed: what each takes from the other.

    python -m tests.benchmarks.load.under_ingestion [--seconds 30] [--rounds 3]

In each round: searches alone, by one client in a closed loop and at 10 a second in an open one; ingestion alone; both,
with each of the two loads of searches. Ingestion embeds with the default model, as it does for anyone. What is idle and
what is loaded is measured in one run, in turn. The last line has the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

from mambasearch.v1 import search_pb2

from tests.benchmarks.load import reporting
from tests.benchmarks.load.clients import grpc_client
from tests.benchmarks.load.comparison import BUILD, TOP_K, shuffled_questions
from tests.benchmarks.load.corpus import CHUNKS, Corpus, copy_data, open_corpus
from tests.benchmarks.load.generator import Ask, Load, closed_loop, open_loop
from tests.benchmarks.load.ingesting import Ingestion
from tests.benchmarks.load.running import product_running

P95_RATIO_MAX = 2.0
SPEED_RATIO_MIN = 0.5
RATE = 10.0  # searches a second, of the open loop
SETTLE_S = 5.0  # from the first acknowledgement on, until all stages of ingestion have work
LOADS = ("one client", f"{RATE:g} a second")

Search = Callable[[], Awaitable[Load]]


class Found:
    """What the rounds measured."""

    def __init__(self) -> None:
        self.idle: dict[str, list[Load]] = defaultdict(list)
        self.loaded: dict[str, list[Load]] = defaultdict(list)
        self.speed_alone: list[float] = []
        self.speed_loaded: dict[str, list[float]] = defaultdict(list)

    def p95_ratio(self, name: str) -> float:
        """Compare the p95 under ingestion with the idle one, medians of rounds."""
        loaded, idle = (
            statistics.median(load.percentile(95) for load in each[name]) for each in (self.loaded, self.idle)
        )
        return loaded / idle

    def speed_ratio(self, name: str) -> float:
        """Compare ingestion's speed beside searches with its speed alone, medians of rounds."""
        return statistics.median(self.speed_loaded[name]) / statistics.median(self.speed_alone)


def searches_of(ask: Ask, seconds: float) -> dict[str, Search]:
    """Make the two loads of searches."""
    return {
        LOADS[0]: lambda: closed_loop(ask, 1, seconds),
        LOADS[1]: lambda: open_loop(ask, RATE, seconds),
    }


async def measure(corpus: Corpus, seconds: float, rounds: int) -> Found:
    """Run the rounds, each on documents that are new to the index."""
    data_dir = copy_data(corpus, corpus.folder.parent / "running" / "data")
    documents = corpus.further_documents()
    found = Found()
    with product_running(data_dir) as product:
        mode = search_pb2.SEARCH_MODE_HYBRID
        async with grpc_client(product.target("search"), shuffled_questions(), mode, TOP_K) as ask:
            searches = searches_of(ask, seconds)
            for number in range(rounds):
                for name, search in searches.items():
                    found.idle[name].append(await search())
                    print(f"round {number + 1}: idle, {name}: {found.idle[name][-1].figures()}", flush=True)
                ingestion = Ingestion(product.target("ingest"), documents)
                await ingestion.begin()
                await asyncio.sleep(SETTLE_S)
                began = time.perf_counter()
                await asyncio.sleep(seconds)
                found.speed_alone.append(ingestion.speed(began, time.perf_counter()))
                print(f"round {number + 1}: ingestion alone: {found.speed_alone[-1]:,.0f} tokens/s", flush=True)
                for name, search in searches.items():
                    began = time.perf_counter()
                    found.loaded[name].append(await search())
                    found.speed_loaded[name].append(ingestion.speed(began, time.perf_counter()))
                    print(
                        f"round {number + 1}: both, {name}: {found.speed_loaded[name][-1]:,.0f} tokens/s, "
                        f"{found.loaded[name][-1].figures()}",
                        flush=True,
                    )
                await ingestion.end()
                await asyncio.sleep(SETTLE_S)  # what was under way ends
    return found


def report(found: Found) -> bool:
    """Write and print what was found; the last line says whether the bars are cleared."""
    joined = {
        (f"{state}, {name}", 1): load
        for state, loads in (("idle", found.idle), ("during ingestion", found.loaded))
        for name, each in loads.items()
        for load in [_joined(each)]
    }
    speeds: list[dict[str, object]] = [
        {"system": "ingestion alone", "tokens_per_second": statistics.median(found.speed_alone)},
        *(
            {"system": f"ingestion beside {name}", "tokens_per_second": statistics.median(speeds)}
            for name, speeds in found.speed_loaded.items()
        ),
    ]
    reporting.write("under_ingestion", [*reporting.rows_of(joined), *speeds])
    print(reporting.table(joined))
    for row in speeds:
        print(f"{row['system']}: {row['tokens_per_second']:,.0f} tokens/s")
    errors = sum(load.errors for load in joined.values())
    passed = errors == 0 and all(
        found.p95_ratio(name) <= P95_RATIO_MAX and found.speed_ratio(name) >= SPEED_RATIO_MIN for name in LOADS
    )
    figures = "; ".join(
        f"{name}: query p95 at {found.p95_ratio(name):.2f} x idle, ingestion at {100 * found.speed_ratio(name):.0f} %"
        for name in LOADS
    )
    print(
        f"{'PASS' if passed else 'FAIL'}: {figures} (bars {P95_RATIO_MAX:g} x and {100 * SPEED_RATIO_MIN:.0f} %), "
        f"{errors} errors"
    )
    return passed


def _joined(loads: list[Load]) -> Load:
    whole = Load()
    for load in loads:
        whole.join(load)
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each stretch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=BUILD)
    given = parser.parse_args()
    found = asyncio.run(measure(open_corpus(given.folder, given.chunks), given.seconds, given.rounds))
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
