"""The plots of the experiments, from the JSON lines that they wrote.

    python -m tests.benchmarks.experiments.plots build/paper-*.jsonl --out docs

Writes ``paper-quality.svg`` (by system), ``paper-size.svg``, ``paper-length.svg``, ``paper-needle.svg`` (by length and
depth) and ``paper-speed.svg``: those of the experiments that there are lines of. Where two lines measure one thing, the
later one counts.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from encoder.jsonl import read_rows

Row = Mapping[str, Any]
Plot = Callable[[Figure, Sequence[Row]], None]

# What makes two lines measurements of the same thing.
_KEYS = {
    "runs": ("run", "dataset", "seed"),
    "length": ("model", "dataset", "length", "way"),
    "needle": ("model", "length", "depth", "way"),
    "speed": ("system", "device", "length"),
}
_SIZES = ("mamba-8m", "mamba", "mamba-60m")
_NAMES = {
    "mamba": "Mamba-2, last token",
    "transformer": "Transformer, mean pooling",
    "unselective": "Mamba-2 without selection",
    "bidirectional": "Mamba-2, bidirectional",
    "mamba-mean": "Mamba-2, mean pooling",
    "transformer-eos": "Transformer, last token",
    "bidirectional-mean": "Mamba-2, bidirectional, mean pooling",
    "alone": "best chunk, read alone",
    "one-pass": "best chunk, in one pass",
    "document": "one vector a document",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON lines of runs, length, needle and speed")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the plots")
    given = parser.parse_args(arguments)
    rows = read_results(given.results)
    given.out.mkdir(parents=True, exist_ok=True)
    plots: tuple[tuple[str, str, Plot], ...] = (
        ("quality", "runs", plot_quality),
        ("size", "runs", plot_size),
        ("length", "length", plot_length),
        ("needle", "needle", plot_needle),
        ("speed", "speed", plot_speed),
    )
    for name, experiment, plot in plots:
        found = rows.get(experiment)
        if not found:
            continue
        figure = Figure(layout="constrained")
        plot(figure, found)
        path = given.out / f"paper-{name}.svg"
        # Text stays text, and the same figures give the same file.
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            figure.savefig(path, metadata={"Date": None})
        print(path)
    return 0


def read_results(paths: Sequence[Path]) -> dict[str, list[Row]]:
    """Read lines by experiment."""
    found: dict[str, dict[tuple[Any, ...], Row]] = {}
    for path in paths:
        for _, row in read_rows(path, "results"):
            experiment = str(row["experiment"])
            key = tuple(row[name] for name in _KEYS[experiment])
            found.setdefault(experiment, {})[key] = row
    return {experiment: list(rows.values()) for experiment, rows in found.items()}


def plot_quality(figure: Figure, rows: Sequence[Row]) -> None:
    """Draw nDCG@10 with its interval, a group of points per set, and the mean of all sets."""
    runs = [name for name in dict.fromkeys(row["run"] for row in rows) if name not in ("mamba-8m", "mamba-60m")]
    sets = shared_sets(rows, runs)
    figure.set_size_inches(2 + 1.1 * (len(sets) + 1), 4.2)
    axes = figure.add_subplot()
    for number, run in enumerate(runs):
        shift = (number - (len(runs) - 1) / 2) * 0.7 / len(runs)
        chosen = [[row for row in rows if row["run"] == run and row["dataset"] == name] for name in sets]
        points = [fmean(row["ndcg@10"] for row in each) for each in chosen]
        below = [point - fmean(row["interval"][0] for row in each) for point, each in zip(points, chosen, strict=True)]
        above = [fmean(row["interval"][1] for row in each) - point for point, each in zip(points, chosen, strict=True)]
        places = [place + shift for place in range(len(sets) + 1)]
        errors = [[*below, 0.0], [*above, 0.0]]
        label = _NAMES.get(run, run)
        axes.errorbar(places, [*points, fmean(points)], yerr=errors, fmt="o", capsize=2, markersize=4, label=label)
    axes.set_xticks(range(len(sets) + 1), [*sets, "mean"], rotation=20)
    _finish(axes, "nDCG@10")


def plot_size(figure: Figure, rows: Sequence[Row]) -> None:
    """Draw the mean nDCG@10 over parameters."""
    runs = [run for run in _SIZES if any(row["run"] == run for row in rows)]
    sets = shared_sets(rows, runs)
    figure.set_size_inches(6.4, 3.6)
    axes = figure.add_subplot()
    chosen = {run: [row for row in rows if row["run"] == run and row["dataset"] in sets] for run in runs}
    sizes = [each[0]["parameters"] / 1e6 for each in chosen.values()]
    axes.plot(sizes, [fmean(row["ndcg@10"] for row in each) for each in chosen.values()], "o-", label="Mamba-2")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:.0f}M" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel("parameters")
    _finish(axes, f"mean nDCG@10 over {len(sets)} sets")


def plot_length(figure: Figure, rows: Sequence[Row]) -> None:
    """Draw nDCG@10 over the tokens of documents, a panel per model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure.set_size_inches(2.5 + 3.6 * len(models), 3.8)
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    kinds = list(dict.fromkeys((row["dataset"], row["way"]) for row in rows))
    lengths = sorted({row["length"] for row in rows})
    several = len({row["dataset"] for row in rows}) > 1
    labelled = {}
    for axes, model in zip(panels, models, strict=True):
        for number, (dataset, way) in enumerate(kinds):
            line = [row for row in rows if (row["model"], row["dataset"], row["way"]) == (model, dataset, way)]
            line.sort(key=lambda row: row["length"])
            label = f"{dataset}, {_NAMES[way]}" if several else _NAMES[way]
            points = [row["length"] for row in line], [row["ndcg@10"] for row in line]
            if line:
                labelled[label] = axes.plot(*points, "o-", color=f"C{number}", markersize=4)[0]
        _length_axis(axes, lengths)
        axes.set_title(model, fontsize="medium")
        _finish(axes, "nDCG@10" if axes is panels[0] else "", legend=False)
    panels[0].set_ylim(0, 1)
    figure.legend(labelled.values(), labelled.keys(), fontsize="small", frameon=False, loc="outside right center")


def plot_needle(figure: Figure, rows: Sequence[Row]) -> None:
    """Draw accuracy@1 as heat maps of length and depth, a row of panels per model, a column per way of reading."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    lengths, depths = (sorted({row[key] for row in rows}) for key in ("length", "depth"))
    figure.set_size_inches(1.5 + 3.6 * len(ways), 0.8 + 2.8 * len(models))
    panels = figure.subplots(len(models), len(ways), squeeze=False, sharex=True, sharey=True)
    for model, line in zip(models, panels, strict=True):
        for way, axes in zip(ways, line, strict=True):
            found = {
                (row["depth"], row["length"]): row["accuracy@1"]
                for row in rows
                if (row["model"], row["way"]) == (model, way)
            }
            table = [[found.get((depth, length), math.nan) for length in lengths] for depth in depths]
            image = axes.imshow(table, vmin=0, vmax=1, aspect="auto", cmap="viridis")
            for y, values in enumerate(table):
                for x, value in enumerate(values):
                    if not math.isnan(value):
                        axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="w" if value < 0.6 else "k")
            axes.set_xticks(range(len(lengths)), [_short(length) for length in lengths])
            axes.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths])
            axes.set_title(f"{model}\n{_NAMES[way]}", fontsize="small")
    figure.supxlabel("tokens of a document", fontsize="medium")
    figure.supylabel("depth of the needle", fontsize="medium")
    figure.colorbar(image, ax=panels, label="accuracy@1")


def plot_speed(figure: Figure, rows: Sequence[Row]) -> None:
    """Draw tokens a second over the tokens of a text, a panel per device."""
    devices = list(dict.fromkeys(row["device"] for row in rows))
    figure.set_size_inches(1.5 + 4.5 * len(devices), 3.8)
    panels = figure.subplots(1, len(devices), squeeze=False)[0]
    for axes, device in zip(panels, devices, strict=True):
        here = sorted((row for row in rows if row["device"] == device), key=lambda row: row["length"])
        for system in dict.fromkeys(row["system"] for row in here):
            line = [row for row in here if row["system"] == system]
            speeds = [row["tokens_per_s"] for row in line]
            axes.plot(
                [row["length"] for row in line], speeds, "o-", label=_NAMES[system].split(",")[0]
            )  # pooling costs nothing
        axes.set_yscale("log")
        _length_axis(axes, sorted({row["length"] for row in here}))
        axes.set_xlabel("tokens of a text")
        axes.set_title(device, fontsize="medium")
        _finish(axes, "tokens per second", legend=axes is panels[-1])


def shared_sets(rows: Sequence[Row], runs: Sequence[str]) -> list[str]:
    """Give the sets that all of these runs were measured on."""
    return sorted(set.intersection(*({row["dataset"] for row in rows if row["run"] == run} for run in runs)))


def _length_axis(axes: Axes, lengths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [_short(length) for length in lengths])
    axes.minorticks_off()
    axes.set_xlabel("tokens of a document")


def _short(length: int) -> str:
    return f"{length // 1024}K" if length % 1024 == 0 else f"{length:,}"


def _finish(axes: Axes, unit: str, *, legend: bool = True) -> None:
    axes.set_ylabel(unit)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


if __name__ == "__main__":
    sys.exit(main())
