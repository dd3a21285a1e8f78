"""Fails unless the encoder is as fast as it is to be on one NVIDIA H200, beside other encoders, in one run.

    python -m tests.benchmarks.prove_encoder_speed [--sentence-transformers FOLDER] [--plot SVG] [--report PAGE]
    python -m tests.benchmarks.prove_encoder_speed --read RESULTS.jsonl…

Runs `mamba-search bench encoder --check`, or reads what that wrote with --results; of two lines about one thing the
later counts. A figure that is missing fails, but for BERT's where it was too slow or out of memory: who has none is
outrun. The last line has the figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from encoder.benchmarking.results import (
    Agreement,
    Cell,
    Latency,
    Machine,
    Row,
    System,
    Texts,
    of_kind,
    read_results,
)
from encoder.errors import MambaSearchError

RESULTS = Path("build/encoder-speed.jsonl")
LENGTHS = (128, 512, 2048, 8192, 32_768, 131_072, 262_144)
FUSED_MIN = dict.fromkeys(LENGTHS, 1.8e6) | {128: 1.6e6}
FP8_MIN = dict.fromkeys(LENGTHS[1:], 2.4e6)
OVER_MAMBA_SSM = 1.5
OVER_BERT = {2048: 1.0, 8192: 1.9, 32_768: 5.0, 131_072: 1.0, 262_144: 1.0}
QUERY_MS_MAX, QUERY_P99_MS_MAX, EIGHT_MS_MAX = 2.0, 3.0, 2.5
MEMORY_GROWTH_MAX = 0.10
# Of weights at random, 24 layers deep; what 8 bits do to a trained model's rankings is gpu_quality.py's to say.
COSINE_MIN = {System.FUSED: 0.999, System.FUSED_FP8: 0.97}


class Bar(NamedTuple):
    """One figure and whether it clears its bar."""

    what: str
    figure: str
    passed: bool


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", type=Path, nargs="+", help="JSON lines of runs before; nothing is measured")
    parser.add_argument("--sentence-transformers", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args(arguments)
    if not given.read:
        if not torch.cuda.is_available():
            print("FAIL: no CUDA device; nothing was measured")
            return 1
        code = measure(given.sentence_transformers, given.plot, given.report)
        if code:
            print("FAIL: the benchmark did not come to its end")
            return code
    try:
        rows = [row for path in given.read or [RESULTS] for row in read_results(path)]
    except MambaSearchError as error:
        print(f"FAIL: {error}")
        return 1
    if not any(machine.cuda for machine in of_kind(rows, Machine)):
        print("FAIL: no CUDA device; these figures are a CPU's")
        return 1
    bars = list(judge(rows))
    for bar in bars:
        print(f"{'ok  ' if bar.passed else 'FAIL'} {bar.what}: {bar.figure}")
    failed = [bar.what for bar in bars if not bar.passed]
    print(f"{'FAIL: ' + '; '.join(failed) if failed else 'PASS'}: {summary(rows)}")
    return 1 if failed else 0


def measure(folder: Path | None, plot: Path | None, report: Path | None) -> int:
    """Run the benchmark, with checks; give its exit code."""
    from services.cli.app import run

    files = {"--sentence-transformers": folder, "--plot": plot, "--report": report}
    named = [word for option, path in files.items() if path for word in (option, str(path))]
    RESULTS.parent.mkdir(exist_ok=True)
    return run(["bench", "encoder", "--device", "cuda", "--check", "--results", str(RESULTS), *named])


def judge(rows: Sequence[Row]) -> Iterator[Bar]:
    """Hold every figure against its bar."""
    cells = {(cell.system, cell.length): cell for cell in of_kind(rows, Cell)}
    yield from speeds(cells, System.FUSED, FUSED_MIN)
    yield from speeds(cells, System.FUSED_FP8, FP8_MIN)
    for length in LENGTHS:
        for other in (System.MAMBA_SSM, System.MIXER):
            yield ratio(cells, other, length, OVER_MAMBA_SSM)
    for length, least in OVER_BERT.items():
        yield ratio(cells, System.BERT, length, least)
    yield memory(cells)
    latencies = {each.queries: each for each in of_kind(rows, Latency) if each.system == System.FUSED}
    one, eight = latencies.get(1), latencies.get(8)
    yield at_most("median ms of a query", one and one.median_ms, QUERY_MS_MAX)
    yield at_most("p99 ms of a query", one and one.p99_ms, QUERY_P99_MS_MAX)
    yield at_most("median ms of eight queries", eight and eight.median_ms, EIGHT_MS_MAX)
    texts = {(each.ours, each.model, each.batch_size): each for each in of_kind(rows, Texts)}
    yield whole_texts(list(texts.values()))
    agreements = {(each.system, each.length): each for each in of_kind(rows, Agreement)}
    for system, least in COSINE_MIN.items():
        yield agreement([each for each in agreements.values() if each.system == system], system, least)


Cells = dict[tuple[System, int], Cell]


def speeds(cells: Cells, system: System, least: dict[int, float]) -> Iterator[Bar]:
    for length, bar in least.items():
        speed = speed_of(cells, system, length)
        figure = "not measured" if speed is None else f"{speed:,.0f} (bar {bar:,.0f})"
        yield Bar(f"{system} tokens/s at {length:,}", figure, speed is not None and speed >= bar)


def ratio(cells: Cells, other: System, length: int, least: float) -> Bar:
    """Compare the fused kernels with somebody at one length."""
    what = f"{System.FUSED} over {other} at {length:,}"
    ours, theirs = (speed_of(cells, system, length) for system in (System.FUSED, other))
    if ours is None:
        return Bar(what, "not measured", passed=False)
    if theirs is None:
        cell = cells.get((other, length))
        gave_up = cell is not None and cell.stopped.startswith(("over ", "out of memory"))
        return Bar(what, cell.stopped if cell else "not measured", passed=gave_up and other is System.BERT)
    return Bar(what, f"{ours / theirs:.2f} (bar {least:.1f})", ours / theirs >= least)


def memory(cells: Cells) -> Bar:
    """Longer documents need no more memory; less is fine."""
    short, long = (cells.get((System.FUSED, length)) for length in (8192, 262_144))
    what = "growth of peak memory from 8,192 to 262,144 tokens"
    if not (short and long and short.peak_bytes and long.peak_bytes):
        return Bar(what, "not measured", passed=False)
    growth = long.peak_bytes / short.peak_bytes - 1
    return Bar(what, f"{growth:+.1%} (bar {MEMORY_GROWTH_MAX:.0%})", growth <= MEMORY_GROWTH_MAX)


def at_most(what: str, figure: float | None, most: float) -> Bar:
    if figure is None:
        return Bar(what, "not measured", passed=False)
    return Bar(what, f"{figure:.2f} (bar {most:.1f})", figure <= most)


def whole_texts(found: Sequence[Texts]) -> Bar:
    """Compare texts a second with the best batch size of sentence-transformers."""
    ours = max((each.texts_per_s or 0.0 for each in found if each.ours), default=0.0)
    theirs = max((each.texts_per_s or 0.0 for each in found if not each.ours), default=0.0)
    what = "whole texts/s over sentence-transformers"
    if not (ours and theirs):
        return Bar(what, "not measured; give --sentence-transformers", passed=False)
    return Bar(what, f"{ours:,.0f} to {theirs:,.0f}, {ours / theirs:.2f} (bar 1.0)", ours > theirs)


def agreement(found: Sequence[Agreement], system: System, least: float) -> Bar:
    """A fast path that computes something else would be no faster path."""
    what = f"least cosine of {system} with float32"
    if not found or any(each.cosine_min is None for each in found):
        return Bar(what, "not measured", passed=False)
    cosine = min(each.cosine_min or 0.0 for each in found)
    return Bar(what, f"{cosine:.5f} (bar {least:g})", cosine >= least)


def summary(rows: Sequence[Row]) -> str:
    """Give the figures in a line."""
    cells = {(cell.system, cell.length): cell for cell in of_kind(rows, Cell)}
    parts = []
    for system in (System.FUSED, System.FUSED_FP8, System.MAMBA_SSM, System.BERT):
        found = [f"{speed / 1e6:.2f}M" if (speed := speed_of(cells, system, each)) else "-" for each in LENGTHS]
        parts.append(f"{system} {' '.join(found)}")
    queries = [f"{each.median_ms:.2f} ms" for each in of_kind(rows, Latency) if each.system == System.FUSED]
    return f"tokens/s at {' '.join(map(str, LENGTHS))}: {', '.join(parts)}; one and eight queries {' '.join(queries)}"


def speed_of(cells: Cells, system: System, length: int) -> float | None:
    cell = cells.get((system, length))
    return None if cell is None else cell.tokens_per_s


if __name__ == "__main__":
    sys.exit(main())
