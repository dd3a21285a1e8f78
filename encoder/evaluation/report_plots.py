"""The plots of the report page, each as an ``<svg>`` element; empty where there is nothing to show."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from encoder.errors import MambaSearchError
from encoder.evaluation.report_table import column_name
from encoder.evaluation.results import Column, Result, columns_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def quality_by_set(results: Sequence[Result]) -> str:
    """nDCG@10 with its interval: a group of points per set."""
    if not results:
        return ""
    sets = sorted({result.dataset for result in results})
    figure, axes = _figure(width=2 + 1.3 * len(sets))
    columns = columns_of(results)
    for number, column in enumerate(columns):
        rows = {result.dataset: result for result in results if result.column == column}
        shift = (number - (len(columns) - 1) / 2) * 0.7 / len(columns)
        places = [sets.index(name) + shift for name in rows]
        _points(axes, places, list(rows.values()), column_name(column, results[0].system), line=False)
    axes.set_xticks(range(len(sets)), sets, rotation=20)
    return _finish(figure, axes, "nDCG@10")


def quality_by_length(results: Sequence[Result]) -> str:
    """nDCG@10 with its interval over the tokens of documents: a line per set and column."""
    if not results:
        return ""
    figure, axes = _figure()
    for label, rows in _lines(results):
        _points(axes, [result.length or 0 for result in rows], rows, label, line=True)
    _lengths(axes, results)
    return _finish(figure, axes, "nDCG@10")


def speed_by_length(results: Sequence[Result]) -> str:
    """Tokens a second that the encoder read, over the tokens of documents."""
    timed = [result for result in results if result.tokens_per_s and result.mode == "dense"]
    if not timed:
        return ""
    figure, axes = _figure()
    for label, rows in _lines(timed):
        axes.plot([row.length or 0 for row in rows], [row.tokens_per_s or 0 for row in rows], marker="o", label=label)
    _lengths(axes, timed)
    axes.set_ylim(bottom=0)
    return _finish(figure, axes, "tokens/s")


def quality_by_size(results: Sequence[Result]) -> str:
    """Mean nDCG@10 over parameters: a point per system and column, over the sets that all of them have."""
    sized = [result for result in results if result.parameters and result.mode not in ("sparse", "bm25s")]
    columns = columns_of(sized)
    if len({result.parameters for result in sized}) < 2:
        return ""
    shared = set.intersection(*({row.dataset for row in sized if row.column == column} for column in columns))
    if not shared:
        return ""
    figure, axes = _figure()
    for column in columns:
        rows = [row for row in sized if row.column == column and row.dataset in shared]
        size = rows[0].parameters or 0
        axes.plot([size], [fmean(row.ndcg_at_10 for row in rows)], "o", label=column_name(column, ""))
    axes.set_xscale("log")
    axes.set_xlabel("parameters")
    return _finish(figure, axes, f"mean nDCG@10 over {len(shared)} sets")


def _lines(results: Sequence[Result]) -> Iterable[tuple[str, list[Result]]]:
    """Group results by set and column, each in order of length."""
    groups: dict[tuple[str, Column], list[Result]] = {}
    for result in sorted(results, key=lambda row: row.length or 0):
        groups.setdefault((result.dataset, result.column), []).append(result)
    return [(f"{name}, {column_name(column, results[0].system)}", rows) for (name, column), rows in groups.items()]


def _points(axes: Axes, places: Sequence[float], rows: Sequence[Result], label: str, *, line: bool) -> None:
    scores = [row.ndcg_at_10 for row in rows]
    intervals = [row.intervals.get("ndcg@10", (score, score)) for row, score in zip(rows, scores, strict=True)]
    below = [max(0.0, score - low) for score, (low, _) in zip(scores, intervals, strict=True)]
    above = [max(0.0, high - score) for score, (_, high) in zip(scores, intervals, strict=True)]
    style = "o-" if line else "o"
    axes.errorbar(places, scores, yerr=[below, above], fmt=style, capsize=2, markersize=4, label=label)


def _lengths(axes: Axes, results: Sequence[Result]) -> None:
    lengths = sorted({result.length or 0 for result in results})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    axes.set_xlabel("tokens of a document")


def _figure(width: float = 8.0) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MambaSearchError("matplotlib is missing; install mamba-search[evaluate].") from error
    figure = Figure(figsize=(max(6.0, min(width, 14.0)), 4.5), layout="constrained")
    return figure, figure.add_subplot()


def _finish(figure: Figure, axes: Axes, unit: str) -> str:
    import matplotlib as mpl

    axes.set_ylabel(unit)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    text = io.StringIO()
    # Text stays text; ids follow from the plot's own title, so that several plots on a page do not share them.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": unit + axes.get_xlabel()}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()
    return svg[svg.index("<svg") :].strip()
