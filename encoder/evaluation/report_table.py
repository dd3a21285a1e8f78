"""Results as a table in Markdown: a row per set, a column for everybody who was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from encoder.evaluation.results import Chunks, Column, EvaluationMode, Result, columns_of


def render_table(results: Iterable[Result]) -> str:
    """Make the table of nDCG@10 with the half width of each 95 % interval; means below.

    Sets whose documents were lengthened have rows of their own, below their means. A mean stands where all sets have a
    figure: means over different sets do not compare.
    """
    found = list(results)
    columns = columns_of(found)
    first = found[0].system if found else ""
    lines = [
        _row(["set", "documents", "queries", *(column_name(column, first) for column in columns)]),
        _row(["---", *["---:"] * (2 + len(columns))]),
    ]
    for length in sorted({result.length or 0 for result in found}):
        cells = {(result.dataset, result.column): result for result in found if (result.length or 0) == length}
        sets = sorted({dataset for dataset, _ in cells})
        for name in sets:
            row = [cells.get((name, column)) for column in columns]
            some = next(result for result in row if result)
            lines.append(_row([some.title, f"{some.documents:,}", f"{some.queries:,}", *map(_figure, row)]))
        title = f"**mean, {length:,} tokens**" if length else "**mean**"
        lines.append(
            _row([title, "", "", *(_mean([cells.get((name, column)) for name in sets]) for column in columns)])
        )
    return "\n".join(lines)


def column_name(column: Column, own: str) -> str:
    """Name a column for a reader; the system called ``own`` goes without its name."""
    system, mode, chunks = column
    if mode == EvaluationMode.BM25S:
        return "bm25s"
    if mode == EvaluationMode.RRF:
        mode = "RRF with bm25s"
    ways: dict[str, str] = {Chunks.ONE_PASS: ", one pass", Chunks.DOCUMENT: ", one vector a document"}
    added = ways.get(chunks, "")
    return f"{mode}{added}" if system == own else f"{system} {mode}{added}"


def _figure(result: Result | None) -> str:
    if result is None:
        return ""
    interval = result.intervals.get("ndcg@10")
    half = f" ± {(interval[1] - interval[0]) / 2:.3f}" if interval else ""
    return f"{result.ndcg_at_10:.3f}{half}"


def _mean(results: Sequence[Result | None]) -> str:
    scores = [result.ndcg_at_10 for result in results if result]
    return f"**{fmean(scores):.3f}**" if scores and len(scores) == len(results) else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
