"""Renders what ``mamba-search evaluate`` printed as the table of README.md.

    python -m encoder.evaluation.report RESULTS.jsonl [--readme README.md]

With ``--readme`` the table replaces what stands between ``<!-- quality-table -->`` and ``<!-- /quality-table -->``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

import pydantic

MODES = ("dense", "sparse", "hybrid")
BEGIN, END = "<!-- quality-table -->", "<!-- /quality-table -->"


class Result(pydantic.BaseModel):
    """One line of ``evaluate``: the quality of one mode on one set."""

    dataset: str
    mode: str
    documents: int
    queries: int
    ndcg_at_10: float = pydantic.Field(alias="ndcg@10")
    recall_at_100: float = pydantic.Field(alias="recall@100")
    mrr_at_10: float = pydantic.Field(alias="mrr@10")
    seconds: float


def read_results(path: Path) -> list[Result]:
    """Read JSON lines; a later line about the same set and mode replaces an earlier one."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    results = [Result.model_validate_json(line) for line in lines]
    return list({(result.dataset, result.mode): result for result in results}.values())


def render_table(results: Iterable[Result]) -> str:
    """Make a Markdown table: a row per set, nDCG@10 of each mode, recall@100 and MRR@10 of hybrid, means below."""
    found = {(result.dataset, result.mode): result for result in results}
    sets = sorted({dataset for dataset, _ in found})
    header = ["set", "documents", "queries", *(f"{mode} nDCG@10" for mode in MODES), "hybrid R@100", "hybrid MRR@10"]
    lines = [_row(header), _row(["---", *["---:"] * (len(header) - 1)])]
    for name in sets:
        modes = [found.get((name, mode)) for mode in MODES]
        some = next(result for result in modes if result)
        scores = [result.ndcg_at_10 if result else None for result in modes]
        hybrid = modes[-1]
        scores += [hybrid.recall_at_100, hybrid.mrr_at_10] if hybrid else [None, None]
        lines.append(_row([name, f"{some.documents:,}", f"{some.queries:,}", *map(_figure, scores)]))
    means = [mean_ndcg(found.values(), mode) for mode in MODES]
    lines.append(_row(["**mean**", "", "", *(f"**{_figure(mean)}**" for mean in means), "", ""]))
    return "\n".join(lines)


def mean_ndcg(results: Iterable[Result], mode: str) -> float | None:
    """Mean nDCG@10 of a mode over its sets; None where it has none."""
    scores = [result.ndcg_at_10 for result in results if result.mode == mode]
    return fmean(scores) if scores else None


def insert_between(text: str, first: str, last: str, inserted: str) -> str:
    """Replace what stands between two marks, each on its line; :class:`ValueError` where they are missing."""
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{first} and {last} are not both there")
    return f"{before}{begin}\n{inserted}\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or put it into a README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines as `mamba-search evaluate --json` prints them")
    parser.add_argument("--readme", type=Path, help="file to put the table into, between its marks")
    given = parser.parse_args(arguments)
    table = render_table(read_results(given.results))
    if given.readme:
        given.readme.write_text(
            insert_between(given.readme.read_text(encoding="utf-8"), BEGIN, END, table), encoding="utf-8"
        )
    else:
        print(table)
    return 0


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
