"""One search after another over 100,000 chunks, end to end: from the gRPC client's call to the answer in its hands.

    python -m tests.benchmarks.load.latency [--seconds 20] [--rounds 3]

The whole product runs (``mamba-search up``) with the default model on this machine's cores. Both modes are asked in
turn. The last line has the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from mambasearch.v1 import search_pb2

from tests.benchmarks.load import reporting
from tests.benchmarks.load.clients import grpc_client
from tests.benchmarks.load.comparison import BUILD, DENSE, HYBRID, TOP_K, shuffled_questions
from tests.benchmarks.load.corpus import CHUNKS, Corpus, copy_data, open_corpus
from tests.benchmarks.load.generator import Load, closed_loop
from tests.benchmarks.load.running import product_running

P50_MS_MAX = 25.0
MODES = {HYBRID: search_pb2.SEARCH_MODE_HYBRID, DENSE: search_pb2.SEARCH_MODE_DENSE}


async def measure(corpus: Corpus, seconds: float, rounds: int) -> dict[str, list[Load]]:
    """Ask in both modes in turn; the loads of each round."""
    questions = shuffled_questions()
    data_dir = copy_data(corpus, corpus.folder.parent / "running" / "data")
    found: dict[str, list[Load]] = defaultdict(list)
    with product_running(data_dir) as product:
        for number in range(rounds):
            for name, mode in MODES.items():
                async with grpc_client(product.target("search"), questions, mode, TOP_K) as ask:
                    load = await closed_loop(ask, 1, seconds)
                found[name].append(load)
                print(f"round {number + 1}: {name}: {load.figures()}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each stretch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=BUILD)
    given = parser.parse_args()
    found = asyncio.run(measure(open_corpus(given.folder, given.chunks), given.seconds, given.rounds))
    joined = {(name, 1): Load() for name in found}
    for name, loads in found.items():
        for load in loads:
            joined[name, 1].join(load)
    reporting.write("latency", reporting.rows_of(joined))
    print(reporting.table(joined))
    print(reporting.stages(joined))
    medians = {name: statistics.median(load.percentile(50) for load in loads) for name, loads in found.items()}
    errors = sum(load.errors for load in joined.values())
    passed = errors == 0 and all(median <= P50_MS_MAX for median in medians.values())
    figures = ", ".join(f"{name.partition(', ')[2]} {median:.1f} ms" for name, median in medians.items())
    print(
        f"{'PASS' if passed else 'FAIL'}: single search over {given.chunks:,} chunks, p50 {figures} "
        f"(bar {P50_MS_MAX:.0f} ms), {errors} errors"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
