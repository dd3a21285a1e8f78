"""Tokens a second by length of text, both axes logarithmic, as an SVG file; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from encoder.benchmarking.results import OURS, TITLES, Ceilings, Cell, Machine, Row, System, lengths_of, of_kind
from encoder.errors import MambaSearchError


def require_matplotlib() -> None:
    """Raise :class:`MambaSearchError` where matplotlib is missing: better before the work than after it."""
    try:
        import matplotlib  # noqa: F401 - whether it can be
    except ModuleNotFoundError as error:
        raise MambaSearchError("matplotlib is missing; install mamba-search[evaluate].") from error


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw a line per contender, ours thicker, and the device's ceiling dashed."""
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    cells = [cell for cell in of_kind(rows, Cell) if cell.tokens_per_s]
    lengths = lengths_of(cells)
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for system in System:
        line = sorted((cell for cell in cells if cell.system == system), key=lambda cell: cell.length)
        if line:
            speeds = [cell.tokens_per_s or 0 for cell in line]
            width = 2.4 if system in OURS else 1.2
            axes.plot([cell.length for cell in line], speeds, "o-", label=TITLES[system], linewidth=width, markersize=4)
    for ceilings in of_kind(rows, Ceilings)[-1:]:
        for system, style, label in ((System.FUSED, "--", "ceiling, 16 bits"), (System.FUSED_FP8, ":", "ceiling, FP8")):
            costs = ceilings.seconds_per_token(system)
            if costs:
                axes.axhline(1 / sum(costs), linestyle=style, color="0.5", linewidth=1, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{length // 1024}K" if length % 1024 == 0 else f"{length:,}" for length in lengths])
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.set_xlabel("tokens of a text")
    axes.set_ylabel("tokens per second")
    for machine in of_kind(rows, Machine)[-1:]:
        axes.set_title(f"{machine.model}, {machine.device}, {machine.dtype}", fontsize="medium")
    axes.grid(which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "encoder-speed"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
