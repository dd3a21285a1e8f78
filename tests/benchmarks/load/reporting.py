"""What a load test writes down: JSON lines in ``build``, a table, and the plot for README."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.load.generator import Load

RESULTS = Path("build/load")
Measured = Mapping[tuple[str, int], Load]  # by system and number of clients


def write(name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as JSON lines, with the machine and how busy it was, in the place of an earlier run's."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    about = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "load_average": os.getloadavg(),
    }
    path.write_text("".join(json.dumps({**row, **about}) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(measured: Measured) -> list[dict[str, object]]:
    """Give a row for each system and number of clients."""
    return [{"system": system, "clients": clients, **load.figures()} for (system, clients), load in measured.items()]


def table(measured: Measured) -> str:
    """Set a Markdown table."""
    lines = [
        "| system | clients | p50 | p95 | p99 | searches/s | refused | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (system, clients), load in measured.items():
        milliseconds = " | ".join(f"{load.percentile(percent):.1f} ms" for percent in (50, 95, 99))
        refused = load.codes["REFUSED"]
        lines.append(
            f"| {system} | {clients} | {milliseconds} | {load.throughput:,.0f} | {refused:,} | {load.errors:,} |"
        )
    return "\n".join(lines)


def renew_readme(readme: Path, text: str, plot: Path | None = None) -> None:
    """Put a table, and the plot where there is one, between the marks of README."""
    if plot:
        shown = Path(os.path.relpath(plot, readme.parent)).as_posix()
        text = f"{text}\n\n![latencies and searches a second, by number of clients]({shown})"
    begin, end = "<!-- load: begin -->\n", "<!-- load: end -->\n"
    before, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise SystemExit(f"{readme} has no lines {begin.strip()} and {end.strip()} to put the table between.")
    readme.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")


def stages(measured: Measured) -> str:
    """Say where the time went, by what the service tells: medians in milliseconds."""
    lines = []
    for (system, clients), load in measured.items():
        told = load.figures()["stages_p50_ms"]
        if told:
            lines.append(f"{system}, {clients} clients: {told}")
    return "\n".join(lines)


def plot(measured: Measured, path: Path) -> None:
    """Draw latencies and throughput of each system, one panel for each number of clients."""
    import matplotlib.pyplot as pyplot

    numbers = sorted({clients for _, clients in measured})
    figure, axes = pyplot.subplots(1, len(numbers) + 1, figsize=(9.6, 3.6), layout="constrained")
    for panel, clients in zip(axes, numbers, strict=False):
        found = {system: load for (system, count), load in measured.items() if count == clients}
        for place, (system, load) in enumerate(found.items()):
            heights = [load.percentile(percent) for percent in (50, 95, 99)]
            positions = [group + 0.8 * place / len(found) for group in range(3)]
            panel.bar(positions, heights, width=0.8 / len(found), align="edge", label=system)
        panel.set_xticks([group + 0.4 for group in range(3)], ["p50", "p95", "p99"])
        panel.set_title(f"{clients} client{'s' if clients > 1 else ''}")
        panel.set_ylabel("milliseconds")
    for place, system in enumerate(dict.fromkeys(system for system, _ in measured)):
        heights = [measured[system, clients].throughput for clients in numbers]
        axes[-1].bar([group + 0.27 * place for group in range(len(numbers))], heights, width=0.27, align="edge")
    axes[-1].set_xticks([group + 0.4 for group in range(len(numbers))], [f"{clients} clients" for clients in numbers])
    axes[-1].set_title("searches a second")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, metadata={"Date": None})
