"""Results as one HTML page that needs nothing beside it: plots as SVG, tables, how sure each difference is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from encoder.evaluation import report_plots as plots
from encoder.evaluation.report_table import column_name
from encoder.evaluation.results import Comparison, Result, columns_of

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td small { color: #666; }
.up { color: #00703c; } .down { color: #b3261e; } .even { color: #666; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
"""
_METRICS = (
    ("ndcg_at_10", "ndcg@10", "nDCG@10"),
    ("mrr_at_10", "mrr@10", "MRR@10"),
    ("recall_at_100", "recall@100", "R@100"),
)


def render_page(results: Iterable[Result]) -> str:
    """Make the page; a plot without data is left out. The same results make the same bytes."""
    found = list(results)
    natural = [result for result in found if result.length is None]
    lengthened = [result for result in found if result.length is not None]
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><title>Quality</title>']
    parts += [f"<style>{_STYLE}</style></head><body><h1>Quality</h1>"]
    parts += [
        "<p>A document's score is its best chunk's. Intervals hold 95 % of the means of 10,000 bootstrap samples of "
        "the queries. Differences are paired by query: ▲ and ▼ are significant at 5 % by bootstrap interval and "
        "randomization test, ○ are not.</p>"
    ]
    sections = (
        ("Quality by set", plots.quality_by_set(natural), _table(natural) if natural else ""),
        ("Quality by length", plots.quality_by_length(lengthened), _table(lengthened) if lengthened else ""),
        ("Speed by length", plots.speed_by_length(lengthened), ""),
        ("Quality against size", plots.quality_by_size(natural), ""),
        ("Differences from the baseline", "", _differences(found)),
    )
    for title, figure, table in sections:
        if figure or table:
            parts.append(f"<h2>{title}</h2>" + (f"<figure>{figure}</figure>" if figure else "") + table)
    return "\n".join([*parts, "</body></html>\n"])


def _table(results: Sequence[Result]) -> str:
    own = results[0].system
    titles = ["set", "system", *(title for *_, title in _METRICS), "documents", "queries", "tokens/s", "parameters"]
    rows = [_cells("th", [escape(title) for title in titles])]
    order = {column: place for place, column in enumerate(columns_of(results))}
    for result in sorted(results, key=lambda row: (row.dataset, row.length or 0, order[row.column])):
        figures = [_metric(result, attribute, key) for attribute, key, _ in _METRICS]
        speed = f"{result.tokens_per_s:,.0f}" if result.tokens_per_s else ""
        size = f"{result.parameters:,}" if result.parameters else ""
        texts = [escape(result.title), escape(column_name(result.column, own)), *figures]
        rows.append(_cells("td", [*texts, f"{result.documents:,}", f"{result.queries:,}", speed, size]))
    return f"<table>{''.join(rows)}</table>"


def _metric(result: Result, attribute: str, key: str) -> str:
    text = f"{getattr(result, attribute):.4f}"
    if key in result.intervals:
        low, high = result.intervals[key]
        text += f" <small>[{low:.3f}, {high:.3f}]</small>"
    if key in result.differences:
        text += " " + _mark(result.differences[key])
    return text


def _differences(results: Sequence[Result]) -> str:
    compared = [result for result in results if result.differences]
    if not compared:
        return ""
    titles = ["set", "system", "baseline", "nDCG@10", "interval", "p, bootstrap", "p, randomization", ""]
    rows = [_cells("th", titles)]
    for result in compared:
        found = result.differences["ndcg@10"]
        texts = [escape(result.title), escape(column_name(result.column, "")), escape(result.baseline or "")]
        figures = [f"{found.mean:+.4f}", f"[{found.low:+.4f}, {found.high:+.4f}]"]
        rows.append(
            _cells("td", [*texts, *figures, f"{found.p_bootstrap:.4f}", f"{found.p_randomization:.4f}", _mark(found)])
        )
    return f"<table>{''.join(rows)}</table>"


def _mark(found: Comparison) -> str:
    if not found.significant:
        return f'<span class="even" title="{found.mean:+.4f}, not significant">○</span>'
    kind, sign = ("up", "▲") if found.mean > 0 else ("down", "▼")
    return f'<span class="{kind}" title="{found.mean:+.4f}, p {found.p_randomization:.4f}">{sign}</span>'


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"
