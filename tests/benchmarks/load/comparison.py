"""Searches over 100,000 chunks by the product and by the server a user would write, side by side in one run.

    python -m tests.benchmarks.load.comparison [--seconds 60] [--rounds 2] [--plot FILE.svg] [--readme FILE.md]

Both run at once and are asked in turn, the same questions for the same number of hits, by 1 client and by 16: the
product by meaning alone (what the plain server does) and in its default mode, hybrid. Of the plain server's two
endpoints the faster one is taken, for each number of clients. The last line has the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

from mambasearch.v1 import search_pb2

from tests.benchmarks.load import reporting
from tests.benchmarks.load.clients import grpc_client, http_client
from tests.benchmarks.load.corpus import CHUNKS, Corpus, copy_data, open_corpus
from tests.benchmarks.load.generator import Ask, Load, closed_loop
from tests.benchmarks.load.running import cpu_seconds, plain_server_running, product_running
from tests.benchmarks.load.texts import read_questions

BUILD = Path("build/load")
DENSE, HYBRID, PLAIN = "mamba-search, dense", "mamba-search, hybrid", "FastAPI + MiniLM"
ENDPOINTS = ("search", "search-async")
TOP_K = 10
CLIENTS = (1, 16)
SINGLE_SECONDS = 15.0
TRIAL_SECONDS = 5.0
IDLE_SECONDS = 5.0


def shuffled_questions() -> list[str]:
    """Give the questions in an order that has nothing to do with their paragraphs'."""
    questions = read_questions()
    random.Random(1).shuffle(questions)
    return questions


async def faster_endpoint(address: str, questions: list[str], clients: int, stack: AsyncExitStack) -> Ask:
    """Try both endpoints of the plain server, and give the one that answers more."""
    tried: list[tuple[float, str, Ask]] = []
    for endpoint in ENDPOINTS:
        ask = await stack.enter_async_context(http_client(f"{address}/{endpoint}", questions, TOP_K, clients))
        load = await closed_loop(ask, clients, TRIAL_SECONDS)
        tried.append((load.throughput, endpoint, ask))
        print(f"plain server, /{endpoint}, {clients} clients: {load.throughput:.0f} searches/s", flush=True)
    return max(tried, key=lambda each: each[0])[2]


async def measure(corpus: Corpus, seconds: float, rounds: int) -> dict[tuple[str, int], list[Load]]:
    """Ask all systems in turn; the loads of each round, by system and number of clients."""
    questions = shuffled_questions()
    data_dir = copy_data(corpus, corpus.folder.parent / "running" / "data")
    found: dict[tuple[str, int], list[Load]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        product = stack.enter_context(product_running(data_dir))
        address = stack.enter_context(plain_server_running(corpus.plain))
        used = cpu_seconds(product.pid)
        await asyncio.sleep(IDLE_SECONDS)
        used = (cpu_seconds(product.pid) - used) / IDLE_SECONDS
        print(f"the product takes {100 * used:.0f} % of a core while nobody asks", flush=True)
        modes = {DENSE: search_pb2.SEARCH_MODE_DENSE, HYBRID: search_pb2.SEARCH_MODE_HYBRID}
        systems = {
            name: await stack.enter_async_context(grpc_client(product.target("search"), questions, mode, TOP_K))
            for name, mode in modes.items()
        }
        plain = {clients: await faster_endpoint(address, questions, clients, stack) for clients in CLIENTS}
        for number in range(rounds):
            for clients in CLIENTS:
                stretch_s = SINGLE_SECONDS if clients == 1 else seconds
                for system in (DENSE, PLAIN, HYBRID):
                    ask = plain[clients] if system == PLAIN else systems[system]
                    load = await closed_loop(ask, clients, stretch_s)
                    found[system, clients].append(load)
                    print(f"round {number + 1}: {system}, {clients} clients: {load.figures()}", flush=True)
    return found


def judge(found: dict[tuple[str, int], list[Load]]) -> tuple[bool, str]:
    """Compare, by the medians of rounds; give whether the bars are cleared, and the line that says so."""
    singles = {system: statistics.median(load.percentile(50) for load in found[system, 1]) for system, _ in found}
    many = {system: statistics.median(load.throughput for load in found[system, 16]) for system, _ in found}
    errors = sum(load.errors for (system, _), loads in found.items() if system != PLAIN for load in loads)
    passed = errors == 0 and singles[DENSE] <= singles[PLAIN] and many[DENSE] > many[PLAIN]
    return passed, (
        f"single search p50 {singles[DENSE]:.1f} ms dense, {singles[HYBRID]:.1f} ms hybrid, {singles[PLAIN]:.1f} ms "
        f"plain server (bar: dense at most the plain server's); 16 clients {many[DENSE]:.0f} dense, {many[HYBRID]:.0f} "
        f"hybrid, {many[PLAIN]:.0f} searches/s plain server (bar: dense ahead); {errors} errors (bar 0)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each stretch with 16 clients")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=BUILD)
    parser.add_argument("--plot", type=Path, help="draw the figures into this SVG file")
    parser.add_argument("--readme", type=Path, help="put the table between the marks of this file")
    given = parser.parse_args()
    found = asyncio.run(measure(open_corpus(given.folder, given.chunks), given.seconds, given.rounds))
    joined = {key: Load() for key in found}
    for key, loads in found.items():
        for load in loads:
            joined[key].join(load)
    reporting.write("comparison", reporting.rows_of(joined))
    if given.plot:
        reporting.plot(joined, given.plot)
    if given.readme:
        reporting.renew_readme(given.readme, reporting.table(joined), given.plot)
    print(reporting.table(joined))
    print(reporting.stages(joined))
    passed, line = judge(found)
    print(f"{'PASS' if passed else 'FAIL'}: {line}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
